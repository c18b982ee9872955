//! What a plain scalar is to kubectl: its YAML library (go.yaml.in/yaml/v2, `resolve.go`) follows YAML 1.1 and its own
//! habits, where `yes` is a boolean, `0o17` a number, and a number that is too large is text.

use serde_json::Value;

/// The JSON that a plain scalar means; `None` for text. Infinities and the like are null: JSON lacks them, and kubectl
/// refuses them.
#[must_use]
pub fn meaning(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Some(Value::Bool(false))
        }
        _ => number(text),
    }
}

/// Whether a plain scalar is no value at all.
#[must_use]
pub fn is_null(text: &str) -> bool {
    meaning(text) == Some(Value::Null) && !text.starts_with(['.', '+', '-'])
}

fn number(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Value::Null);
    }
    if text.starts_with('.') {
        // Here, Go's own rule holds: `_` stands between digits.
        let parts: Vec<_> = text.split('_').collect();
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        let fits =
            parts.windows(2).all(|pair| is_digit(pair[0].as_bytes().last()) && is_digit(pair[1].as_bytes().first()));
        let text = parts.concat();
        return if fits { decimal(&text, &text) } else { None };
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '_') || text.starts_with('_') {
        return None;
    }
    let (text, unsigned) = (text.replace('_', ""), unsigned.replace('_', ""));
    // Go reads no sign before a number that needs all 64 bits.
    let fits = |number: &Value| !text.starts_with('+') || number.is_i64();
    whole(text.starts_with('-'), &unsigned)
        .filter(fits)
        .or_else(|| decimal(&text, &unsigned))
        // A second sign, which Go reads behind `0b`.
        .or_else(|| text.strip_prefix("0b-").and_then(|digits| binary(true, digits)))
        .or_else(|| text.strip_prefix("0b+").and_then(|digits| binary(false, digits)))
}

fn binary(negative: bool, digits: &str) -> Option<Value> {
    digits.chars().all(|c| c.is_digit(2)).then(|| u64::from_str_radix(digits, 2).ok()).flatten().and_then(|number| {
        let number = if negative { -i128::from(number) } else { i128::from(number) };
        i64::try_from(number).ok().map(Value::from)
    })
}

/// A number with a point or an exponent. One that is too large is text.
fn decimal(text: &str, unsigned: &str) -> Option<Value> {
    // Rust reads the same texts as numbers, and also words, which begin with a letter.
    let number: f64 = if is_decimal(unsigned) { text.parse().ok()? } else { return None };
    // JSON has one form for 10 and 10.0, and kubectl reads a whole number there.
    #[allow(clippy::cast_possible_truncation, reason = "only of whole numbers within the range that f64 has exactly")]
    let whole = (number.fract() == 0.0 && number.abs() < EXACT_MAX).then_some(number as i64);
    whole.map(Value::from).or_else(|| serde_json::Number::from_f64(number).map(Value::from))
}

/// Up to here, f64 has every whole number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn whole(negative: bool, digits: &str) -> Option<Value> {
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| {
            lower.strip_prefix(prefix).filter(|rest| !rest.is_empty()).map(|rest| (rest, radix))
        })
        .unwrap_or((&lower, 10));
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    if negative { i64::try_from(-i128::from(number)).ok().map(Value::from) } else { Some(Value::from(number)) }
}

/// `[0-9]*\.?[0-9]*([eE][-+]?[0-9]+)?` with at least one digit before the exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(before)
        && digits(behind)
        && !(before.is_empty() && behind.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubectl_reads() {
        for (text, expected) in [
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("017", json!(15)),
            ("0b11", json!(3)),
            ("0", json!(0)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000)),
            ("089", json!(89)),
            ("18446744073709551615", json!(u64::MAX)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("-.inf", json!(null)),
            ("1_0.5", json!(10.5)),
            ("-_1", json!(-1)),
            ("0b-1", json!(-1)),
            (".5_0", json!(0.5)),
            ("+_1", json!(1)),
            ("12e03", json!(12000)),
            ("+18446744073709551615", json!(18_446_744_073_709_551_615.0)),
            ("1e-400", json!(0)),
            ("1.10", json!(1.1)),
        ] {
            assert_eq!(meaning(text), Some(expected), "{text}");
        }
        for text in [
            "hunter2",
            "1a",
            "0xg",
            "2001-01-01",
            "1.2.3",
            "12:30:45",
            "-",
            ".",
            "e5",
            "inf",
            "NaN",
            "yEs",
            "--1",
            "1e",
            "4e501234",
            "-1e999",
            ".5_",
            "._5",
            ".5__0",
            "0o-1",
            "_1",
            "+.nan",
            ".",
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
        assert!(is_null("") && is_null("null") && !is_null(".nan") && !is_null("0"));
    }
}
