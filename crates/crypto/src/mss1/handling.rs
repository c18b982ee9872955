//! Whether an opened value may be delivered.

use crate::limits::SEALED_KEPT_BIT;

/// Whether an opened value may be delivered.
///
/// It stands in the header, so it is readable without a key and authenticated with the value. The operator opens both
/// kinds alike; the admission policy on users' permissions tells them apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Handling {
    /// It may be delivered as a Secret.
    #[default]
    Deliverable,
    /// It is kept: to have it delivered needs the permission to read values through the value API
    /// (`secretvalues.values.managedsecrets.dev`).
    Kept,
}

impl Handling {
    /// Its bit in the scope byte of the header.
    pub(super) fn bit(self) -> u8 {
        match self {
            Self::Deliverable => 0,
            Self::Kept => SEALED_KEPT_BIT,
        }
    }

    /// Takes a scope byte apart: what may be done with the value, and the code of the scope.
    pub(super) fn split(byte: u8) -> (Self, u8) {
        let handling = if byte & SEALED_KEPT_BIT == 0 { Self::Deliverable } else { Self::Kept };
        (handling, byte & !SEALED_KEPT_BIT)
    }
}
