//! Time of one call of what seals and opens, against the bare call of the crate below it; and of one decision. In this process:
//! the cluster only gives the object that is decided about.

use std::{hint::black_box, time::Instant};

use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce, aead::Aead as _};
use hpke::{Kem as _, OpModeR, OpModeS, aead::AesGcm256, kdf::HkdfSha256, kem::XWing};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use managed_secrets::{
    controller::timing::{self, Look},
    keyring::KeyringStore,
};
use managed_secrets_api::{ManagedSecret, keys::DEFAULT_OPERATOR_NAMESPACE as OPERATOR_NAMESPACE, names::record_name};
use managed_secrets_crypto::{
    Plaintext, Seed,
    mse1::{self, Place},
    mss1::{self, Handling, Scope, Sealed, SealingKey},
    provider::Provider,
};
use rand::{SeedableRng as _, rngs::StdRng};
use testkit::Result;
use zeroize::Zeroizing;

use super::{Found, Size, progress};
use crate::{
    ground::{Ground, format_error, json},
    load::{self, Deliveries, Source},
    report::{Comparison, Figure},
    stats::float,
};

const ROW: &str = "crypto";
const NAMESPACE: &str = "crypto";
const VALUE: &[u8] = b"a-value-of-usual-length";
/// Bytes to which the formats pad that value.
const PADDED: [u8; 64] = [0; 64];
/// The associated data of a bare call: about as much as the formats have.
const ASSOCIATED: [u8; 96] = [0; 96];

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    progress("crypto");
    let mut found = Found::default();
    let value = Plaintext::new(Zeroizing::new(VALUE.to_vec())).map_err(|error| format_error("a value", &error))?;
    let calls = (size.samples * 5).max(1);
    let mut compare = |what: &str, to: &'static str, own: &dyn Fn(), bare: &dyn Fn()| {
        let (mut measured, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..size.repetitions {
            measured.push(microseconds(calls, own));
            baseline.push(microseconds(calls, bare));
        }
        let figure = Figure::new(ROW, what, "µs", measured);
        found.figures.push(figure.against(Comparison::Ratio { to, baseline }));
    };

    let key = SealingKey::new(Zeroizing::new([7; 32])).map_err(|error| format_error("a key", &error))?;
    let scope = Scope::Strict { namespace: "shop".to_owned(), name: "db".to_owned() };
    let (private, public) = XWing::derive_keypair(&[7; 32]);
    let bare_seal = || {
        let mut random = StdRng::from_rng(&mut rand::rng());
        let mode = OpModeS::Base;
        hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
            &mode,
            &public,
            b"",
            &PADDED,
            &ASSOCIATED,
            &mut random,
        )
    };
    compare(
        "seal a value (mss1)",
        "HPKE of the crate",
        &|| drop(black_box(mss1::seal(key.public(), &scope, Handling::default(), &value))),
        &|| drop(black_box(bare_seal())),
    );
    let text = mss1::seal(key.public(), &scope, Handling::default(), &value);
    let text = text.map_err(|error| format_error("a value", &error))?;
    let (encapsulated, ciphertext) = bare_seal().map_err(|error| format_error("a value", &error))?;
    compare(
        "open a sealed value (mss1)",
        "HPKE of the crate",
        &|| drop(black_box(Sealed::parse(&text).map(|sealed| sealed.open(&key, "shop", "db")))),
        &|| {
            drop(black_box(hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
                &OpModeR::Base,
                &private,
                &encapsulated,
                b"",
                &ciphertext,
                &ASSOCIATED,
            )));
        },
    );

    let seed = Seed::generate().map_err(|error| format_error("a seed", &error))?;
    let place = Place { namespace: "shop", object: "db" };
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from([7; 32]));
    let nonce = Nonce::from([0; 12]);
    let uid = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
    compare(
        "encrypt a record (MSE1)",
        "AES-256-GCM of the crate",
        &|| drop(black_box(mse1::seal(&seed, &place, uid, 1, &value))),
        &|| drop(black_box(cipher.encrypt(&nonce, PADDED.as_slice()))),
    );
    let record = mse1::seal(&seed, &place, uid, 1, &value).map_err(|error| format_error("a record", &error))?;
    let sealed = cipher.encrypt(&nonce, PADDED.as_slice()).map_err(|error| format_error("a record", &error))?;
    compare(
        "decrypt a record (MSE1)",
        "AES-256-GCM of the crate",
        &|| drop(black_box(mse1::open(&record, &place, |_| Some(&seed)))),
        &|| drop(black_box(cipher.decrypt(&nonce, sealed.as_slice()))),
    );
    found.figures.extend(decisions(ground, size, calls).await?);
    Ok(found)
}

/// Time of one look at an object in step, which asks for nothing: of all of it, and of the decision alone.
async fn decisions(ground: &Ground, size: Size, calls: usize) -> Result<[Figure; 2]> {
    ground.create_namespace(NAMESPACE).await?;
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, NAMESPACE, Source::Value, &key.key, 1).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), NAMESPACE);
    let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), NAMESPACE);
    load::apply_all(&objects, &specs, 1).await?;
    deliveries.until_count(1).await?;
    replica.stop().await?;
    let object = objects.get(&load::name(0)).await?;
    let api = Api::<Secret>::namespaced(ground.admin.clone(), NAMESPACE);
    let mut secrets = Vec::new();
    for name in [record_name(&object.spec.name), load::name(0)] {
        secrets.push(json(&api.get(&name).await?)?);
    }
    let keyring = KeyringStore::new(ground.admin.clone(), OPERATOR_NAMESPACE, Provider::Local).load().await;
    let keyring = keyring.map_err(|error| format_error("the keyring", &error))?;
    let look = Look::new(json(&object)?, secrets, keyring).map_err(|error| format_error("an object", &error))?;
    let (look, facts) = look
        .and_then(|look| look.facts().map(|facts| (look, facts)))
        .filter(|(_, facts)| timing::is_in_step(facts))
        .ok_or_else(|| format_error("an object", &"it is not in step"))?;
    ground.empty_namespace(NAMESPACE).await?;
    let figure = |what: &str, call: &dyn Fn()| {
        let measured = (0..size.repetitions).map(|_| microseconds(calls, call)).collect();
        Figure::new(ROW, what, "µs", measured)
    };
    Ok([
        figure("look at an object in step", &|| {
            black_box(look.facts().map(|facts| timing::is_in_step(&facts)));
        }),
        figure("decide about an object in step", &|| {
            black_box(timing::is_in_step(&facts));
        }),
    ])
}

/// Microseconds of one call, on average.
fn microseconds(calls: usize, call: &dyn Fn()) -> f64 {
    let began = Instant::now();
    (0..calls).for_each(|_| call());
    began.elapsed().as_secs_f64() * 1e6 / float(calls)
}
