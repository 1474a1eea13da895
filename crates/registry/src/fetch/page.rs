//! Lists that come in pages: tags and referrers.

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderMap, HeaderValue};
use url::Url;

use crate::manifest::media_type;

/// Longest query that is taken out of a `Link`.
const MAX_QUERY: usize = 4 * 1024;

/// Which page: the query of the request, in the client's own words (`n`, `last`, `artifactType`, and
/// whatever else a registry puts into its links).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    pairs: Vec<(String, String)>,
}

impl PageRequest {
    /// Reads a query as it stands in a URL, without its `?`.
    pub fn from_query(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Self {
            pairs: pairs.into_owned().collect(),
        }
    }

    /// As it stands in a URL, without its `?`.
    pub fn to_query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.pairs);
        query.finish()
    }

    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        self.pairs.clone()
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// A JSON object, as it was sent.
    pub body: Bytes,
    /// Without parameters; empty where the registry names none.
    pub media_type: String,
    /// The query of the next page, where there is one. Where it leads besides is not said: the next page
    /// is asked of the same registry.
    pub next: Option<PageRequest>,
    /// `OCI-Filters-Applied` of referrers.
    pub filters_applied: Option<HeaderValue>,
    /// As [`crate::Manifest::warnings`].
    pub warnings: Vec<HeaderValue>,
}

impl Page {
    pub(super) fn new(headers: &HeaderMap, body: Bytes, warnings: Vec<HeaderValue>) -> Self {
        Self {
            body,
            media_type: media_type(headers),
            next: next(headers),
            filters_applied: headers.get("oci-filters-applied").cloned(),
            warnings,
        }
    }
}

/// The query of the first `Link` whose relation is `next` (RFC 8288, as registries write it).
fn next(headers: &HeaderMap) -> Option<PageRequest> {
    let base = Url::parse("http://registry/").ok()?;
    headers.get_all(LINK).iter().find_map(|value| {
        let text = value.to_str().ok().filter(|text| text.len() <= MAX_QUERY)?;
        let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if !is_next {
            return None;
        }
        let url = base.join(target).ok()?;
        Some(PageRequest::from_query(url.query().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_link_says() {
        for (link, want) in [
            (
                r#"</v2/a/tags/list?last=b%20c&n=2>; rel="next""#,
                Some("last=b c,n=2"),
            ),
            (r#"<?n=2>;rel=next"#, Some("n=2")),
            (
                r#"<https://evil.io/x?n=1>; title="x"; REL=Next"#,
                Some("n=1"),
            ),
            (r#"</v2/a?n=2>; rel="prev""#, None),
            ("</v2/a?n=2", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_static(link));
            let found = next(&headers).map(|page| {
                let pairs = page.pairs.iter().map(|(k, v)| format!("{k}={v}"));
                pairs.collect::<Vec<_>>().join(",")
            });
            assert_eq!(found.as_deref(), want, "{link}");
        }
    }
}
