//! The operating system's randomness: the only source that this crate uses.

use zeroize::Zeroizing;

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// `N` random bytes.
pub(super) fn bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, RandomError> {
    let mut out = Zeroizing::new([0; N]);
    getrandom::fill(out.as_mut_slice()).map_err(|_| RandomError)?;
    Ok(out)
}
