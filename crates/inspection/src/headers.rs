//! What browsers are told not to allow.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest, Sha256};

/// The page.
pub(crate) const PAGE: &str = include_str!("page.html");

/// Nothing runs but the page's own script, and it reaches nothing but this listener.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(PAGE, "script"),
        hash(PAGE, "style"),
    );
    // Base64 and what stands above are valid in a header.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Adds them to an answer, whatever it is.
pub(crate) fn add(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// SHA-256 of what stands between the page's only `<tag>` and `</tag>`, as a policy names it.
fn hash(page: &str, tag: &str) -> String {
    let inside = page
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(inside, _)| inside);
    STANDARD.encode(Sha256::digest(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_what_stands_between_the_tags() {
        let page = "<p><style>a{}</style><script>1</script>";
        // printf 'a{}' | openssl dgst -sha256 -binary | base64
        let expected = "X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk=";
        assert_eq!(hash(page, "style"), expected);
    }

    #[test]
    fn the_page_has_one_of_each_and_nothing_from_outside() {
        for tag in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for outside in [
            " src=",
            "@import",
            "url(",
            "http://",
            "https://",
            "innerHTML",
        ] {
            // The namespace of SVG in the icon is a name, not an address.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(PAGE.len() < 32 << 10, "{} bytes", PAGE.len());
        let policy = POLICY.to_str().unwrap();
        assert!(policy.contains("script-src 'sha256-"), "{policy}");
    }
}
