//! What does the environment say of the Hub? The variables of Python's `huggingface_hub`, read as it reads them.
//!
//! Source: `constants.py` and `utils/_auth.py` of huggingface_hub.

use std::path::PathBuf;

/// Where the Hub is, who asks, and where the cache lies. It has no `Debug`: the token is never to be seen.
pub(super) struct Environment {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else what the file `HF_TOKEN_PATH` (`token` in `HF_HOME`) holds.
    pub token: Option<String>,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: seconds without a byte after which a connection counts as cut.
    pub patience_s: u64,
}

impl Environment {
    /// As this process has it.
    pub(super) fn read() -> Self {
        Self::of(&|name| std::env::var(name).ok())
    }

    fn of(var: &dyn Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| given(name).map(|text| PathBuf::from(expand(&text, var)));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let caches = given("XDG_CACHE_HOME").unwrap_or_else(|| expand("~/.cache", var));
            PathBuf::from(caches).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub"));
        let token = given("HF_TOKEN").or_else(|| given("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            std::fs::read_to_string(file).ok()
        });
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache,
            token: token.filter(|_| !is_true(var("HF_HUB_DISABLE_IMPLICIT_TOKEN"))),
            patience_s: given("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|s| s.trim().parse().ok())
                .filter(|s| *s > 0)
                .unwrap_or(10),
        }
    }

    /// A text without the token, should it be in there.
    pub(super) fn without_token(&self, text: &str) -> String {
        self.token.as_ref().map_or_else(|| text.to_owned(), |token| text.replace(token, "***"))
    }
}

/// Where what comes from the Hub is kept: `HF_HUB_CACHE`, else `hub` in `HF_HOME`.
#[must_use]
pub fn cache_folder() -> PathBuf {
    Environment::read().cache
}

/// Whether the network is forbidden.
pub(super) fn offline() -> bool {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    is_true(given("HF_HUB_OFFLINE").or_else(|| given("TRANSFORMERS_OFFLINE")))
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

/// With `~` at the beginning, and `$NAME` or `${NAME}` anywhere, replaced; variables that are not set stay as they are.
fn expand(text: &str, var: &dyn Fn(&str) -> Option<String>) -> String {
    let home = || var("HOME").unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let mut rest = match text.strip_prefix('~') {
        Some(after) if after.is_empty() || after.starts_with('/') => format!("{}{after}", home()),
        _ => text.to_owned(),
    };
    let mut out = String::new();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => (&after[..word(after)], word(after)),
        };
        match var(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..=at + length]),
        }
        rest = after[length..].to_owned();
    }
    out + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Environment {
        let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::of(&|name| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let cache = |set: &[(&str, &str)]| of(set).cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), "/h/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "$BASE/hf"), ("BASE", "/b")]), "/b/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "${BASE}/a$NONE"), ("BASE", "/b")]), "/b/a$NONE/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/old");
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), "/new");
    }

    #[test]
    fn the_token_is_the_first_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let file = dir.path().join("elsewhere");
        std::fs::write(dir.path().join("token"), "hf_home\n").unwrap();
        std::fs::write(&file, " hf_file\r\n").unwrap();
        let token = |more: &[(&str, &str)]| of(&[&[("HF_HOME", home)], more].concat()).token;
        assert_eq!(token(&[]).as_deref(), Some("hf_home"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file.to_str().unwrap())]).as_deref(), Some("hf_file"));
        // the one file that is named counts
        assert_eq!(token(&[("HF_TOKEN_PATH", "/nowhere/token")]), None);
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]).as_deref(), Some("hf_old"));
        assert_eq!(
            token(&[("HF_TOKEN", " hf_own\n"), ("HUGGING_FACE_HUB_TOKEN", "hf_old")]).as_deref(),
            Some("hf_own")
        );
        assert_eq!(token(&[("HF_TOKEN", "hf_own"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_TOKEN", "hf_own"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")]).as_deref(), Some("hf_own"));
    }

    #[test]
    fn addresses_and_times() {
        assert_eq!(of(&[]).endpoint, "https://huggingface.co");
        assert_eq!(of(&[("HF_ENDPOINT", "http://mirror/ ")]).endpoint, "http://mirror");
        assert_eq!(of(&[("HF_HUB_DOWNLOAD_TIMEOUT", "3")]).patience_s, 3);
        assert_eq!(of(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).patience_s, 10);
        assert_eq!(of(&[("HF_TOKEN", "hf_own")]).without_token("as hf_own says"), "as *** says");
        assert!(is_true(Some("yes".into())) && !is_true(Some("0".into())) && !is_true(None));
    }
}
