//! Every limit of the API, once. Characters are Unicode scalar values, as OpenAPI's `maxLength` counts them.

/// Longest `spec.name`, in characters.
pub const NAME_MAX: usize = 50;
/// Characters of `spec.name` besides ASCII letters and digits.
pub const NAME_SYMBOLS: &str = "_+=-@#$";
/// Longest `spec.description`, in characters.
pub const DESCRIPTION_MAX: usize = 200;
/// Shortest value, in characters.
pub const VALUE_MIN: usize = 1;
/// Longest value, in characters.
pub const VALUE_MAX: usize = 3500;
/// Shortest generated value, in characters.
pub const GENERATE_MIN: i32 = 1;
/// Longest generated value, in characters.
pub const GENERATE_MAX: i32 = 3500;
/// Length of a generated value when none is given, in characters.
pub const GENERATE_DEFAULT: i32 = 32;
/// Longest Secret name (DNS subdomain), in characters.
pub const SECRET_NAME_MAX: usize = 253;
/// Longest Secret key, in characters.
pub const SECRET_KEY_MAX: usize = 253;
/// Most labels, and most annotations, of a target.
pub const TARGET_METADATA_MAX: usize = 64;
