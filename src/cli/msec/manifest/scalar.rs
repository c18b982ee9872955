//! What a plain scalar is to kubectl: its YAML library (goyaml.v2) follows YAML 1.1 and its own habits, where `yes` is a
//! boolean and `0o17` a number.

use serde_json::Value;

/// The JSON that a plain scalar means; `None` for text. Infinities and the like, which JSON lacks, are null.
pub(super) fn meaning(text: &str) -> Option<Value> {
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
pub(super) fn is_null(text: &str) -> bool {
    meaning(text) == Some(Value::Null) && !text.starts_with(['.', '+', '-'])
}

fn number(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Some(Value::Null);
    }
    let (text, unsigned) = (text.replace('_', ""), unsigned.replace('_', ""));
    whole(text.starts_with('-'), &unsigned).or_else(|| {
        // Rust reads the same texts as numbers, and words besides, which begin with a letter.
        let number = is_decimal(&unsigned).then(|| text.parse::<f64>().ok()).flatten()?;
        Some(serde_json::Number::from_f64(number).map_or(Value::Null, Value::from))
    })
}

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
            ("1e3", json!(1000.0)),
            ("089", json!(89.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("-.inf", json!(null)),
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
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
        assert!(is_null("") && is_null("null") && !is_null(".nan") && !is_null("0"));
    }
}
