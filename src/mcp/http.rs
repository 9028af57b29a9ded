//! Streamable HTTP: on this machine by default, with the origin of browsers checked and, asked for, a token.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::server::{Server, Shared};
use crate::error::{Error, Result};
use crate::verbs::mcp::{Serve, TOKEN};

/// Where the protocol is spoken.
const PATH: &str = "/mcp";

/// The shortest token that is taken for one.
const SHORTEST_TOKEN: usize = 16;

type Service = StreamableHttpService<Server, LocalSessionManager>;
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Refuses a way to serve that would leave the server open.
pub(super) fn token(address: SocketAddr) -> Result<Option<String>> {
    let token = std::env::var(TOKEN).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    match &token {
        None if !address.ip().is_loopback() => Err(Error::usage(format!("`{address}` can be reached by others"))
            .with_hint(format!("set `{TOKEN}` to a secret that requests have to bear, or serve on 127.0.0.1"))),
        Some(token) if token.len() < SHORTEST_TOKEN => {
            Err(Error::usage(format!("`{TOKEN}` has less than {SHORTEST_TOKEN} characters"))
                .with_hint("take a long random one, as of `openssl rand -hex 32`"))
        }
        _ => Ok(token),
    }
}

/// Serves until Ctrl-C; `ready` is told the address once requests are taken.
pub(super) async fn serve(
    address: SocketAddr,
    options: &Serve,
    token: Option<String>,
    shared: Arc<Shared>,
    ready: impl FnOnce(SocketAddr, &str),
) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Error::usage(format!("cannot listen on `{address}`: {e}")).with_hint("take another port, or 0 for a free one")
    })?;
    let address = listener.local_addr().map_err(Error::io("ask for", "the server's address"))?;
    let end = CancellationToken::new();
    let service = StreamableHttpService::new(
        move || Ok(Server::new(Arc::clone(&shared))),
        Arc::new(LocalSessionManager::default()),
        config(address, options, end.clone()),
    );
    let token: Option<Arc<str>> = token.map(Into::into);
    ready(address, PATH);
    loop {
        let stream = tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                end.cancel();
                return Ok(());
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // one connection that failed, or too many open ones for a moment
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (service, token) = (service.clone(), token.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let (service, token) = (service.clone(), token.clone());
                async move { Ok::<_, Infallible>(handle(request, &service, token.as_deref()).await) }
            });
            // a client that goes away in the middle is no error of ours
            let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn config(address: SocketAddr, options: &Serve, end: CancellationToken) -> StreamableHttpServerConfig {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.ip().is_unspecified() {
        hosts.push(address.ip().to_string());
    }
    hosts.extend(options.allow_host.iter().cloned());
    let own =
        ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*", "https://localhost:*", "https://127.0.0.1:*"];
    let origins: Vec<String> = own.map(str::to_owned).into_iter().chain(options.allow_origin.iter().cloned()).collect();
    StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .enforce_origin_validation()
        .with_cancellation_token(end)
}

async fn handle(request: Request<Incoming>, service: &Service, token: Option<&str>) -> Answer {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, &format!("the MCP server is at {PATH}"));
    }
    if token.is_some_and(|token| !bears(request.headers(), token)) {
        let mut answer = plain(StatusCode::UNAUTHORIZED, "the request has to bear the server's token");
        answer.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        return answer;
    }
    service.handle(request).await
}

/// Whether a request bears the token; how long that takes to find out does not depend on how much of it is right.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, given)) = given.and_then(|given| given.split_once(' ')) else { return false };
    let given = given.trim();
    let differs = given.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differs == 0
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_whole_token_is_borne() {
        let with = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert!(bears(&with("Bearer secret"), "secret") && bears(&with("bearer  secret "), "secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer SECRET", "Basic secret", "secret", "Bearer "] {
            assert!(!bears(&with(wrong), "secret"), "{wrong}");
        }
        assert!(!bears(&HeaderMap::new(), "secret"));
    }
}
