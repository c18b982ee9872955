//! Paths that two programs may decode in two ways: none of them gives a value that the caller may not read.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{Estate, client::Identity, hidden};

#[tokio::test]
async fn no_path_leads_to_a_value_that_the_caller_may_not_read() {
    let estate = Estate::shared().await;
    let site = estate.site("hostile").await;
    let id = hidden(&site, "db", "SECRET", "hunter2-of-the-hostile").await;
    hidden(&site, "open", "OPEN", "anyone").await;
    let token = estate.reader(&site, "web", &["OPEN"]).await;
    let user = format!("system:serviceaccount:{}:web", site.namespace);
    let ns = &site.namespace;
    let front = "/apis/values.managedsecrets.dev/v1alpha1/namespaces";
    let values = format!("{front}/{ns}/secretvalues");
    let paths = [
        format!("{values}/SECRET"),
        format!("{values}/{id}"),
        format!("{values}/OPEN/../SECRET"),
        format!("{values}/OPEN%2F..%2FSECRET"),
        format!("{values}/OPEN/%2e%2e/SECRET"),
        format!("{values}/OPEN%252F..%252FSECRET"),
        format!("{values}/./SECRET"),
        format!("{values}//SECRET"),
        format!("{values}/SECRET/"),
        format!("{values}/OPEN/SECRET"),
        format!("{values}/SECRET/OPEN"),
        format!("{values}/SECRET%00"),
        format!("{values}/SECRET%0a"),
        format!("{values}/%53ECRET"),
        format!("{values}/SECRET;OPEN"),
        format!("{values}/OPEN%2FSECRET"),
        format!("{values}/SECRET%23OPEN"),
        format!("{values}/OPEN?name=SECRET"),
        format!("{values}/OPEN%3f/../SECRET"),
        format!("{front}/other/../{ns}/secretvalues/SECRET"),
        format!("{front}/{ns}%2Fsecretvalues%2FSECRET/secretvalues/OPEN"),
        format!("//apis/values.managedsecrets.dev/v1alpha1/namespaces/{ns}/secretvalues/SECRET"),
        format!("/apis//values.managedsecrets.dev/v1alpha1/namespaces/{ns}/secretvalues/SECRET"),
        values.clone(),
        format!("{values}?limit=500"),
        format!("{values}?watch=true"),
        format!("{values}?fieldSelector=metadata.name%3DSECRET"),
        "/apis/values.managedsecrets.dev/v1alpha1/secretvalues/SECRET".to_owned(),
        format!("/apis/values.managedsecrets.dev/v1alpha1/watch/namespaces/{ns}/secretvalues/SECRET"),
        format!("/apis/values.managedsecrets.dev/v1alpha1/proxy/namespaces/{ns}/secretvalues/SECRET"),
    ];
    for path in &paths {
        for (door, answer) in [
            ("aggregated", estate.aggregated(&user, path, &[]).await),
            ("direct", estate.direct(&Identity::Token(&token), path, &[]).await),
        ] {
            assert!(!answer.body.contains("hunter2"), "{door} {path}: {answer:?}");
            let given = answer.code == 200;
            assert!(!given || answer.value() == "anyone" && path.contains("OPEN"), "{door} {path}: {answer:?}");
        }
    }
    // The test can fail: the value is there.
    assert_eq!(estate.aggregated("", &paths[0], &[]).await.value(), "hunter2-of-the-hostile");
}
