//! `/`: the page. Its files are built by `cargo xtask page`, committed, and part of the program; it asks the same routes
//! as everybody else.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// A file of the page.
#[derive(Debug)]
struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        content: include_bytes!("../../page/dist/index.html"),
    },
    Asset {
        path: "/page/app.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../../page/dist/app.js"),
    },
    Asset {
        path: "/page/style.css",
        kind: "text/css; charset=utf-8",
        content: include_bytes!("../../page/dist/style.css"),
    },
    Asset {
        path: "/page/icon.svg",
        kind: "image/svg+xml",
        content: include_bytes!("../../page/dist/icon.svg"),
    },
];

/// The paths of the page's files. They hold nothing secret, and whoever has a key has to see where to put it.
pub const PATHS: [&str; 4] = [ASSETS[0].path, ASSETS[1].path, ASSETS[2].path, ASSETS[3].path];

/// Each path with its media type.
pub const FILES: [(&str, &str); 4] = [
    (ASSETS[0].path, ASSETS[0].kind),
    (ASSETS[1].path, ASSETS[1].kind),
    (ASSETS[2].path, ASSETS[2].kind),
    (ASSETS[3].path, ASSETS[3].kind),
];

/// Nothing from elsewhere, nothing inline, and no text that becomes markup; pictures are also those that a person
/// chose, and sound what was spoken.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// `GET /` and the files that it needs.
pub async fn asset(uri: axum::http::Uri, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == uri.path()) else {
        return super::error::no_such_route(uri).await.into_response();
    };
    let hash: String =
        Sha256::digest(asset.content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let fixed = [
        (CONTENT_TYPE, asset.kind),
        // Asked for again each time, and sent again only after an update.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let unchanged = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let (status, content) =
        if unchanged { (StatusCode::NOT_MODIFIED, &[][..]) } else { (StatusCode::OK, asset.content) };
    (status, fixed, [(ETAG, etag)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        let asset = ASSETS.iter().find(|asset| asset.path == path).unwrap();
        std::str::from_utf8(asset.content).unwrap()
    }

    #[test]
    fn the_page_asks_for_its_own_files_and_no_others() {
        let html = text("/");
        for attribute in ["src=\"", "href=\""] {
            for (at, _) in html.match_indices(attribute) {
                let target = html[at + attribute.len()..].split('"').next().unwrap();
                assert!(target.starts_with('#') || PATHS.contains(&target), "{target}");
            }
        }
        assert!(PATHS[1..].iter().all(|path| html.contains(path)));
        assert!(!text("/page/style.css").contains("url("), "styles load nothing");
    }
}
