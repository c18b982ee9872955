//! From a template and a value to the bytes to deliver.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_crypto::Plaintext;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Expression, Filter, Operand, Part, SyntaxError, Template};
use crate::limits::RENDERED_BYTES_MAX;

/// Digits of hex, in lower case.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that may hold the value; wiped when they are dropped.
pub type Rendered = Zeroizing<Vec<u8>>;

/// Why a template gives no data. It shows no part of a text or a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RenderError {
    /// The text of this key is not a template.
    Syntax {
        /// The key.
        key: String,
        /// Why.
        error: SyntaxError,
    },
    /// It would be more than [`RENDERED_BYTES_MAX`].
    TooLarge,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { key, error } => write!(f, "{key}: {error}"),
            Self::TooLarge => write!(
                f,
                "the template makes more than {} KiB of data from this value, with what each filter makes on the way",
                RENDERED_BYTES_MAX / 1024
            ),
        }
    }
}

impl std::error::Error for RenderError {}

/// The data of a Secret that delivers a value: the value under `key`, and what the template makes of it. A template that
/// has a text for `key` replaces the value there.
pub fn data(
    key: &str,
    value: &Plaintext,
    template: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Rendered>, RenderError> {
    let mut left = RENDERED_BYTES_MAX;
    let mut data = BTreeMap::new();
    if !template.contains_key(key) {
        spend(&mut left, value.as_bytes().len())?;
        data.insert(key.to_owned(), Zeroizing::new(value.as_bytes().to_vec()));
    }
    for (key, text) in template {
        let template = Template::parse(text).map_err(|error| RenderError::Syntax { key: key.clone(), error })?;
        data.insert(key.clone(), template.render(value.as_bytes(), &mut left)?);
    }
    Ok(data)
}

/// Takes bytes from those that are left.
fn spend(left: &mut usize, bytes: usize) -> Result<(), RenderError> {
    *left = left.checked_sub(bytes).ok_or(RenderError::TooLarge)?;
    Ok(())
}

impl Template {
    /// The text with the value in it. `left` are the bytes that may still be made, and is reduced by all that are. What
    /// each filter makes counts as well: a few filters in a row can turn a short text into a very long one.
    fn render(&self, value: &[u8], left: &mut usize) -> Result<Rendered, RenderError> {
        let mut parts = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            parts.push(match part {
                Part::Text(text) => {
                    spend(left, text.len())?;
                    Zeroizing::new(text.clone().into_bytes())
                }
                Part::Expression(expression) => expression.render(value, left)?,
            });
        }
        Ok(joined(parts.iter().map(|part| part.as_slice())))
    }
}

impl Expression {
    fn render(&self, value: &[u8], left: &mut usize) -> Result<Rendered, RenderError> {
        let operands = || self.operands.iter().map(|operand| operand.bytes(value));
        spend(left, operands().map(<[u8]>::len).sum())?;
        let mut result = joined(operands());
        for filter in &self.filters {
            spend(left, filter.length(&result))?;
            result = filter.apply(&result);
        }
        Ok(result)
    }
}

impl Operand {
    fn bytes<'b>(&'b self, value: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Value => value,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

/// One after the other, in memory of exactly that size: a buffer that grows would leave copies behind.
fn joined<'b>(parts: impl Iterator<Item = &'b [u8]> + Clone) -> Rendered {
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.clone().map(<[u8]>::len).sum()));
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

impl Filter {
    /// The bytes that it makes of `input`.
    fn length(self, input: &[u8]) -> usize {
        match self {
            Self::Base64 => input.len().div_ceil(3) * 4,
            Self::UrlEncode => input.iter().map(|byte| if is_unreserved(*byte) { 1 } else { 3 }).sum(),
            Self::Json => 2 + input.iter().map(|byte| json_escape(*byte).len()).sum::<usize>(),
            Self::Sha256 => 64,
        }
    }

    /// What it makes of `input`, in memory of exactly that size.
    fn apply(self, input: &[u8]) -> Rendered {
        let mut output = Zeroizing::new(Vec::with_capacity(self.length(input)));
        match self {
            Self::Base64 => {
                output.resize(self.length(input), 0);
                // It has the length that base64 needs, so this cannot fail.
                let _ = BASE64_STANDARD.encode_slice(input, &mut output);
            }
            Self::UrlEncode => {
                for byte in input {
                    if is_unreserved(*byte) {
                        output.push(*byte);
                    } else {
                        let [high, low] = hex(*byte);
                        output.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
                    }
                }
            }
            Self::Json => {
                output.push(b'"');
                for byte in input {
                    output.extend_from_slice(json_escape(*byte).as_ref());
                }
                output.push(b'"');
            }
            Self::Sha256 => output.extend(Sha256::digest(input).iter().flat_map(|byte| hex(*byte))),
        }
        output
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn hex(byte: u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

/// How a byte of UTF-8 stands in a JSON string (RFC 8259 section 7).
struct Escape {
    bytes: [u8; 6],
    length: usize,
}

impl Escape {
    fn len(&self) -> usize {
        self.length
    }
}

impl AsRef<[u8]> for Escape {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn json_escape(byte: u8) -> Escape {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x00..=0x1f => {
            let [high, low] = hex(byte);
            return Escape { bytes: [b'\\', b'u', b'0', b'0', high, low], length: 6 };
        }
        _ => return Escape { bytes: [byte, 0, 0, 0, 0, 0], length: 1 },
    };
    Escape { bytes: [b'\\', short, 0, 0, 0, 0], length: 2 }
}
