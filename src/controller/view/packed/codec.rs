//! The bytes of a packed view: its fields one after the other, numbers and lengths in as few bytes as they need.
//!
//! Nothing outside this process ever reads them, and so they have neither a version nor names. A [`Reader`] reads what a
//! [`Writer`] has written; where the bytes end early, which they never do, it reads zeros.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::text;

/// Bits of a number in each byte; the highest bit says whether more follow (LEB128).
const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

/// What can be packed.
pub(crate) trait Pack: Sized {
    /// Writes it.
    fn pack(&self, to: &mut Writer);

    /// Reads what [`Pack::pack`] has written.
    fn unpack(from: &mut Reader<'_>) -> Self;
}

/// Bytes as they are written.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while let (low, high @ 1..) = (number.to_le_bytes()[0] & (MORE - 1), number >> BITS) {
            self.0.push(low | MORE);
            number = high;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// Which fields are there, one bit for each: absent ones at the end take nothing.
    pub(crate) fn presence(&mut self, present: &[bool]) {
        self.number(present.iter().rev().fold(0, |bits, present| bits << 1 | u64::from(*present)));
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Which fields are there, in the order of [`Writer::presence`].
pub(crate) struct Presence(u64);

impl Presence {
    /// Whether the next one is.
    pub(crate) fn next(&mut self) -> bool {
        let present = self.0 & 1 != 0;
        self.0 >>= 1;
        present
    }
}

/// Bytes as they are read.
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= u64::from(byte & (MORE - 1)).checked_shl(shift).unwrap_or_default();
            if byte & MORE == 0 {
                break;
            }
            shift += BITS;
        }
        number
    }

    /// Which fields are there.
    pub(crate) fn presence(&mut self) -> Presence {
        Presence(self.number())
    }

    /// A number of things, or of bytes: there are never more than bytes that are left.
    pub(super) fn length(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or_default().min(self.0.len())
    }

    pub(super) fn raw(&mut self, length: usize) -> &'b [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

impl Pack for String {
    fn pack(&self, to: &mut Writer) {
        text::pack(self, to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        text::unpack(from)
    }
}

impl Pack for bool {
    fn pack(&self, to: &mut Writer) {
        to.number(u64::from(*self));
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        from.number() != 0
    }
}

impl Pack for i64 {
    fn pack(&self, to: &mut Writer) {
        // Small numbers of either sign are short (zigzag).
        to.number(((self << 1) ^ (self >> 63)).cast_unsigned());
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        let number = from.number();
        (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
    }
}

impl Pack for i32 {
    fn pack(&self, to: &mut Writer) {
        i64::from(*self).pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        i64::unpack(from).try_into().unwrap_or_default()
    }
}

impl<const N: usize> Pack for [u8; N] {
    fn pack(&self, to: &mut Writer) {
        to.raw(self);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        from.raw(N).try_into().unwrap_or([0; N])
    }
}

impl Pack for Timestamp {
    fn pack(&self, to: &mut Writer) {
        self.as_second().pack(to);
        self.subsec_nanosecond().pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Self::new(Pack::unpack(from), Pack::unpack(from)).unwrap_or_default()
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack(&self, to: &mut Writer) {
        self.is_some().pack(to);
        if let Some(it) = self {
            it.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        bool::unpack(from).then(|| T::unpack(from))
    }
}

impl<T: Pack> Pack for Box<T> {
    fn pack(&self, to: &mut Writer) {
        (**self).pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Self::new(T::unpack(from))
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack(&self, to: &mut Writer) {
        to.number(self.len() as u64);
        for item in self {
            item.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        (0..from.length()).map(|_| T::unpack(from)).collect()
    }
}

impl<T: Pack + Ord> Pack for BTreeSet<T> {
    fn pack(&self, to: &mut Writer) {
        to.number(self.len() as u64);
        for item in self {
            item.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        (0..from.length()).map(|_| T::unpack(from)).collect()
    }
}

impl<K: Pack + Ord, V: Pack> Pack for BTreeMap<K, V> {
    fn pack(&self, to: &mut Writer) {
        to.number(self.len() as u64);
        for (key, value) in self {
            key.pack(to);
            value.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        (0..from.length()).map(|_| (K::unpack(from), V::unpack(from))).collect()
    }
}

/// Packs a struct field by field. What stands after `options` are fields that may be absent: up to 64, the rarest ones
/// last, so that an object without them takes no byte more. What stands after `without` is not packed, and has its default
/// when it is unpacked.
macro_rules! fields {
    (
        $type:ident { $($field:ident),* $(,)? }
        $(options { $($option:ident),* $(,)? })?
        $(without { $($left_out:ident),* $(,)? })?
    ) => {
        impl $crate::controller::view::packed::Pack for $type {
            fn pack(&self, to: &mut $crate::controller::view::packed::Writer) {
                let Self { $($field,)* $($($option,)*)? $($($left_out: _,)*)? } = self;
                $($crate::controller::view::packed::Pack::pack($field, to);)*
                $(
                    to.presence(&[$($option.is_some()),*]);
                    $(
                        if let Some(present) = $option {
                            $crate::controller::view::packed::Pack::pack(present, to);
                        }
                    )*
                )?
            }

            fn unpack(from: &mut $crate::controller::view::packed::Reader<'_>) -> Self {
                $(let $field = $crate::controller::view::packed::Pack::unpack(from);)*
                $(
                    let mut present = from.presence();
                    $(let $option = present.next().then(|| $crate::controller::view::packed::Pack::unpack(from));)*
                )?
                Self { $($field,)* $($($option,)*)? $($($left_out: ::std::default::Default::default(),)*)? }
            }
        }
    };
}

/// Packs an enum without fields.
macro_rules! codes {
    ($type:ident { $first:ident $(, $variant:ident)* }) => {
        impl Pack for $type {
            fn pack(&self, to: &mut Writer) {
                match self {
                    Self::$first $(| Self::$variant)* => to.number(*self as u64),
                }
            }

            fn unpack(from: &mut Reader<'_>) -> Self {
                match from.number() {
                    $(code if code == Self::$variant as u64 => Self::$variant,)*
                    _ => Self::$first,
                }
            }
        }
    };
}

pub(super) use codes;
pub(crate) use fields;
