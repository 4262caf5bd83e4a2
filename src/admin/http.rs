//! The two HTTP listeners: admin commands, and metrics for Prometheus.
//!
//! Each takes one request per connection and a few connections at a time; others wait in the kernel's queue. Bodies are
//! not read: no command that has one is available. Answers are made on a thread that may wait for files and the driver.

use super::commands::{self, Question, Reply};
use super::metrics::{self, Computed};
use super::process::Process;
use super::status::Status;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections of one listener at a time. More wait until one of them has ended.
const CONNECTIONS: usize = 8;
/// Bytes of a request's line and headers; a longer one is refused.
const REQUEST_BYTES: usize = 16 << 10;
/// How long a connection may take in all, beyond the wait for its request: who reads slower than this is cut off.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How long the metrics' listener waits for a request.
const METRICS_IDLE: Duration = Duration::from_secs(30);
/// After an accept failed (out of files, say): how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The quantiles for Prometheus are over five windows of this length: ten minutes.
const WINDOW: Duration = Duration::from_secs(120);
/// Where Prometheus fetches.
const METRICS_PATH: &str = "/metrics";

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    Commands,
    Metrics,
}

/// Serves the admin commands until the process ends.
pub async fn serve_commands(status: Arc<Status>, listener: TcpListener) {
    let idle = Duration::from_millis(status.config.admin.idle_timeout_ms.max(1).into());
    accept(Site::Commands, status, listener, idle).await;
}

/// Serves metrics to Prometheus until the process ends.
pub async fn serve_metrics(status: Arc<Status>, listener: TcpListener) {
    let registry = status.registry.clone();
    let windows = async move {
        let mut ends = tokio::time::interval(WINDOW);
        // The first comes at once.
        ends.tick().await;
        loop {
            ends.tick().await;
            registry.end_window();
        }
    };
    tokio::join!(windows, accept(Site::Metrics, status, listener, METRICS_IDLE));
}

async fn accept(site: Site, status: Arc<Status>, listener: TcpListener, idle: Duration) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // It is never closed.
    while let Ok(place) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let status = status.clone();
                tokio::spawn(async move {
                    converse(site, status, stream, peer, idle).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept an HTTP connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(site: Site, status: Arc<Status>, stream: TcpStream, peer: SocketAddr, idle: Duration) {
    let service = service_fn(move |request| {
        let status = status.clone();
        async move { Ok::<_, Infallible>(answer(site, status, &request, peer).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(idle.saturating_add(ANSWER_TIME), connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, "HTTP connection lost: {error}"),
        Err(_) => tracing::debug!(%peer, "HTTP connection closed: it took too long"),
    }
}

async fn answer(
    site: Site,
    status: Arc<Status>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Response<Full<Bytes>> {
    let is_post = match *request.method() {
        Method::GET | Method::HEAD => false,
        Method::POST => true,
        Method::TRACE => return respond(403, None, String::new()),
        _ => return respond(405, None, String::new()),
    };
    let path = request.uri().path();
    match site {
        Site::Metrics if path == METRICS_PATH && !is_post => {
            let made = tokio::task::spawn_blocking(move || exposition(&status)).await;
            finished(made.map(|text| (200, Some("text/plain; version=0.0.4; charset=utf-8"), text)))
        }
        Site::Metrics => respond(404, None, String::new()),
        Site::Commands => match command_name(path, &status.config.admin.command_url) {
            None => respond(404, None, String::new()),
            Some("") => respond(
                200,
                Some("text/html;charset=utf-8"),
                commands::links(&status.config.admin.command_url),
            ),
            Some(name) => {
                let question = question(name, request, peer, is_post);
                let made = tokio::task::spawn_blocking(move || {
                    let Reply { status, body } = commands::run(&status, &question);
                    (status, Some("application/json"), body.render())
                });
                finished(made.await)
            }
        },
    }
}

/// What stands behind the base of the commands; empty for the base itself.
fn command_name<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(base.trim_end_matches('/'))?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

fn question(name: &str, request: &Request<Incoming>, peer: SocketAddr, is_post: bool) -> Question {
    let authorization = request.headers().get(header::AUTHORIZATION);
    Question {
        name: name.to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: authorization.and_then(|value| value.to_str().ok()).map(str::to_owned),
        peer: peer.ip(),
        is_post,
    }
}

fn exposition(status: &Status) -> String {
    let process = Process::look();
    // Whomever it serves: counters that were 0 while there is no leader would count their whole lives again behind it.
    let computed = match status.present() {
        Some(shared) => status.computed(&shared, &process),
        None => Computed::default(),
    };
    let shown = status.config.metrics.export_process_info.then_some(&process);
    metrics::expose(&status.registry, &computed, shown)
}

type Made = (u16, Option<&'static str>, String);

fn finished(made: Result<Made, tokio::task::JoinError>) -> Response<Full<Bytes>> {
    match made {
        Ok((status, kind, body)) => respond(status, kind, body),
        Err(error) => {
            tracing::error!("an admin command has failed, which is a defect: {error}");
            respond(500, None, String::new())
        }
    }
}

fn respond(status: u16, kind: Option<&'static str>, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(kind) = kind {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::Registry;
    use crate::admin::status::Directories;
    use crate::config::Config;
    use crate::server::Service;
    use crate::server::simulated::shared_alone;
    use std::sync::atomic::Ordering::Relaxed;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What a listener of a server that was never started answers to these bytes.
    async fn ask(site: Site, request: &str) -> String {
        let status = Arc::new(Status::new(
            Config::embedded_default(),
            Directories::default(),
            Arc::new(Registry::default()),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            match site {
                Site::Commands => serve_commands(status, listener).await,
                Site::Metrics => serve_metrics(status, listener).await,
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn commands_are_found_below_their_base() {
        let answer = ask(Site::Commands, "GET /commands/ruok HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        assert!(answer.contains("not currently serving requests"), "{answer}");
        let answer = ask(Site::Commands, "GET /commands HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.contains("<a href=\"/commands/ruok\">ruok</a>"), "{answer}");
        for (request, status) in [
            ("GET / HTTP/1.1", "404"),
            ("GET /commandsruok HTTP/1.1", "404"),
            ("TRACE /commands/ruok HTTP/1.1", "403"),
            ("DELETE /commands/ruok HTTP/1.1", "405"),
            ("POST /commands/ruok HTTP/1.1", "405"),
        ] {
            let answer = ask(Site::Commands, &format!("{request}\r\nHost: a\r\n\r\n")).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {answer}"
            );
        }
    }

    #[tokio::test]
    async fn metrics_are_served_to_prometheus() {
        let answer = ask(Site::Metrics, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("\nfsynctime_sum 0.0\n"), "{answer}");
        assert!(answer.contains("\njvm_memory_bytes_used{area=\"heap\",} "), "{answer}");
        let answer = ask(Site::Metrics, "GET /commands HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }

    #[test]
    fn counters_do_not_fall_while_nobody_is_served() {
        let status = Status::new(
            Config::embedded_default(),
            Directories::default(),
            Arc::new(Registry::default()),
        );
        assert!(exposition(&status).contains("\nconnection_rejected 0.0\n"));
        let shared = shared_alone();
        shared.statistics.connections_rejected.store(5, Relaxed);
        status.attach(Arc::downgrade(&shared));
        assert_eq!(shared.service(), Service::Nobody);
        let text = exposition(&status);
        for line in ["connection_rejected 5.0", "disk_is_short 0.0", "memory_is_short 0.0"] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_request_without_end_is_refused() {
        let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_BYTES));
        let answer = ask(Site::Metrics, &endless).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
