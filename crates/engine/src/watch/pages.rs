//! Limits the memory of a list, independently of the size of its objects.
//!
//! kube requests pages of a fixed number of objects, and decodes a page as a whole. Users choose how large an object is, so
//! a page of 250 can be hundreds of megabytes. This module drops a page of more than [`MAX_BYTES`] and requests it again
//! with fewer objects; a page of one object always passes. Pages become larger again when they are small. kube does not
//! notice: a continue token is valid for pages of any size.
//!
//! The whole process reads few pages at the same time ([`AT_ONCE`]): each watch lists separately, and there is one for each
//! namespace that has sources.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Uri;

/// Limit of bytes of a page with more than one object.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Pages that are read and decoded at the same time.
pub(super) const AT_ONCE: usize = 3;
/// A page that is too large is requested again with this factor fewer objects.
const FEWER: u32 = 4;

/// How many objects the next page of one watch may have.
#[derive(Debug)]
pub(super) struct Pages(AtomicU32);

impl Default for Pages {
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl Pages {
    /// Returns the number of objects to request if kube requests `wanted`.
    pub(super) fn limit(&self, wanted: u32) -> u32 {
        self.0.load(Relaxed).clamp(1, wanted)
    }

    /// A page of at most `limit` objects was too large.
    pub(super) fn shrink(&self, limit: u32) {
        self.0.store((limit / FEWER).max(1), Relaxed);
    }

    /// A page of at most `limit` objects had this many bytes.
    pub(super) fn read(&self, limit: u32, bytes: usize) {
        if bytes <= MAX_BYTES / 4 {
            self.0.store(limit.saturating_mul(2), Relaxed);
        }
    }
}

/// A parameter of a request, as written in its query.
pub(super) fn parameter<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Returns the same request with another limit; `None` if that is not a valid URI.
pub(super) fn with_limit(uri: &Uri, limit: u32) -> Option<Uri> {
    let pair = |pair: &str| if pair.starts_with("limit=") { format!("limit={limit}") } else { pair.to_owned() };
    let query: Vec<String> = uri.query()?.split('&').map(pair).collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), query.join("&")).parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pages_shrink_to_one_object_and_grow_again() {
        let pages = Pages::default();
        assert_eq!(pages.limit(250), 250);
        let mut limits = Vec::new();
        let mut limit = 250;
        while limit > 1 {
            pages.shrink(limit);
            limit = pages.limit(250);
            limits.push(limit);
        }
        assert_eq!(limits, [62, 15, 3, 1]);
        pages.read(1, MAX_BYTES);
        assert_eq!(pages.limit(250), 1, "they are still large");
        for expected in [2, 4, 8] {
            pages.read(pages.limit(250), MAX_BYTES / 4);
            assert_eq!(pages.limit(250), expected);
        }
        for _ in 0..40 {
            pages.read(pages.limit(250), 0);
        }
        assert_eq!(pages.limit(250), 250, "and no further than was asked for");
    }

    #[test]
    fn the_limit_is_the_only_thing_that_changes_in_a_request() {
        let uri: Uri =
            "https://host:1/api/v1/secrets?labelSelector=a%3Db&limit=250&continue=limit%3D7".parse().unwrap();
        assert_eq!(parameter(&uri, "limit"), Some("250"));
        let expected = "https://host:1/api/v1/secrets?labelSelector=a%3Db&limit=3&continue=limit%3D7";
        assert_eq!(with_limit(&uri, 3).unwrap().to_string(), expected);
        assert_eq!(parameter(&"/api/v1/secrets?limits=1".parse().unwrap(), "limit"), None);
        assert_eq!(parameter(&"/api/v1/secrets".parse().unwrap(), "limit"), None);
    }
}
