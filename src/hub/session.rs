//! How is the Hub asked? One request after the other, each tried again a few times with longer and longer waits.

use std::sync::mpsc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LINK, RANGE, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Response};
use serde_json::Value;

use super::environment::Environment;
use super::failure::Failure;
use crate::error::{Error, Result};
use crate::util::interrupt;

/// How often a request is tried again before it is given up.
const AGAIN: u32 = 4;
/// How often where nobody answers at all.
const AGAIN_UNHEARD: u32 = 2;
/// The wait before the first time; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Where the Hub asks to wait for longer, its refusal is told at once.
const MOST_WAIT: Duration = Duration::from_secs(300);
/// Pages of a listing, a thousand files each.
const MOST_PAGES: usize = 1000;

/// Whoever hears lines for people while something comes.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// A talk with the Hub.
pub(super) struct Session {
    pub environment: Environment,
    client: Client,
    lines: mpsc::Sender<String>,
}

/// Does `work` with a session, on a thread of its own so that callers may themselves be asynchronous; what it has to say
/// is told here meanwhile.
pub(super) fn online<T: Send>(
    tell: Tell<'_>,
    work: impl AsyncFnOnce(&Session) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let (lines, heard) = mpsc::channel::<String>();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Error::Internal(format!("no runtime: {e}")))?;
            runtime.block_on(async {
                let session = Session::new(lines)?;
                work(&session).await
            })
        });
        heard.iter().for_each(|line| tell(&line));
        worker.join().unwrap_or_else(|_| Err(Error::Internal("the thread that asks the Hub ended".to_owned()).into()))
    })
}

/// The client for talks of all kinds, `patience_s` seconds without a byte being too long.
pub(super) fn client(patience_s: u64) -> Result<Client, Failure> {
    let agent = HeaderValue::from_static(concat!("tallow/", env!("CARGO_PKG_VERSION")));
    let client = Client::builder()
        .default_headers(HeaderMap::from_iter([(USER_AGENT, agent)]))
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(patience_s))
        .build()?;
    Ok(client)
}

impl Session {
    fn new(lines: mpsc::Sender<String>) -> Result<Self, Failure> {
        let environment = Environment::read();
        if reqwest::Url::parse(&environment.endpoint).is_err() {
            let text = format!("`HF_ENDPOINT` is `{}`, which is no address", environment.endpoint);
            return Err(Error::usage(text).with_hint("unset it for `https://huggingface.co`").into());
        }
        Ok(Self { client: client(environment.patience_s)?, environment, lines })
    }

    /// A line for people.
    pub(super) fn say(&self, line: String) {
        // without a listener there is nobody to tell that
        let _ = self.lines.send(line);
    }

    /// What lies at an address of the Hub, from a byte on; one attempt. Redirects are followed, and the token stays with
    /// the Hub.
    pub(super) async fn get(&self, address: &str, from: u64) -> Result<Response, Failure> {
        let mut request = self.client.get(address);
        if let Some(token) = &self.environment.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Error::usage("the token has letters that no token has").with_hint("look at `HF_TOKEN`, or its file")
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (status, wait) = (answer.status().as_u16(), asked_wait(answer.headers()));
        let header = answer.headers().get("x-error-message").and_then(|text| text.to_str().ok()).map(str::to_owned);
        let body = answer.bytes().await.unwrap_or_default();
        let told = || Some(serde_json::from_slice::<Value>(&body).ok()?.get("error")?.as_str()?.to_owned());
        Err(Failure::Refused { status, said: header.or_else(told).filter(|text| !text.is_empty()), wait })
    }

    /// A JSON document, and the address of the next page where there is one.
    async fn document(&self, what: &str, address: &str) -> Result<(Value, Option<String>), Failure> {
        let mut patience = Patience::default();
        loop {
            let attempt = async {
                let answer = self.get(address, 0).await?;
                let next = answer.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
                let body = answer.bytes().await?;
                let value = serde_json::from_slice(&body)
                    .map_err(|_| Failure::Unexpected("what it answers is no JSON".to_owned()))?;
                Ok((value, next))
            };
            match attempt.await {
                Ok(found) => return Ok(found),
                Err(failure) => patience.wait(self, what, failure).await?,
            }
        }
    }

    /// The JSON document at `path` of the Hub.
    pub(super) async fn json(&self, what: &str, path: &str) -> Result<Value, Failure> {
        Ok(self.document(what, &format!("{}{path}", self.environment.endpoint)).await?.0)
    }

    /// The entries of the JSON list at `path` of the Hub, on all its pages.
    pub(super) async fn list(&self, what: &str, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut entries, mut next) = (Vec::new(), Some(format!("{}{path}", self.environment.endpoint)));
        for _ in 0..MOST_PAGES {
            let Some(address) = next.take() else { break };
            let (page, after) = self.document(what, &address).await?;
            match page {
                Value::Array(page) => entries.extend(page),
                _ => return Err(Failure::Unexpected("what it answers is no list".to_owned())),
            }
            // the token goes to the Hub alone
            next = after.filter(|next| next.starts_with(&format!("{}/", self.environment.endpoint)));
        }
        Ok(entries)
    }
}

/// How often something was tried in vain.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Waits until it is time to try again, longer each time, or as long as the Hub asks for.
    ///
    /// # Errors
    /// The failure itself, where trying again is in vain or was tried often enough.
    pub(super) async fn wait(&mut self, session: &Session, what: &str, failure: Failure) -> Result<(), Failure> {
        let most = if matches!(failure, Failure::NoConnection) { AGAIN_UNHEARD } else { AGAIN };
        let asked = if let Failure::Refused { wait, .. } = &failure { *wait } else { None };
        if !failure.passes() || self.failures >= most || asked.is_some_and(|wait| wait > MOST_WAIT) {
            return Err(failure);
        }
        let wait = asked.unwrap_or(FIRST_WAIT * 2_u32.pow(self.failures));
        self.failures += 1;
        session.say(format!("{what}: {}, trying again in {} s", failure.brief(), wait.as_secs_f64()));
        let until = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < until {
            if interrupt::requested() {
                return Err(Failure::Stopped);
            }
            let left = until - tokio::time::Instant::now();
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
        Ok(())
    }
}

/// How long the Hub asks to wait: `Retry-After` in seconds, or the `t` of `RateLimit: "api";r=0;t=55`.
fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    let reset = || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.trim().parse().ok());
    after.or_else(reset).map(Duration::from_secs)
}

/// The address behind `rel="next"` in a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.trim().strip_prefix('<')?.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_how_long_to_wait_and_where_to_go_on() {
        let wait = |name: &'static str, value: &'static str| {
            asked_wait(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
        let links = "<https://hub/a?x=1>; rel=\"prev\", <https://hub/b?cursor=2>; rel=\"next\"";
        assert_eq!(next_page(links).as_deref(), Some("https://hub/b?cursor=2"));
        assert_eq!(next_page("<https://hub/a>; rel=\"prev\""), None);
    }
}
