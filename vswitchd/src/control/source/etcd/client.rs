//! One connection to one etcd: calls with a time limit, and a token where a user is configured.
//!
//! Not here: what is asked, and what happens when the connection is lost.

use super::messages::{
    AuthenticateRequest, AuthenticateResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, RangeRequest, RangeResponse, TxnRequest,
    TxnResponse, WatchRequest, WatchResponse,
};
use crate::config::Cluster;
use prost::Message;
use std::cell::RefCell;
use std::error::Error as _;
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(2);
/// After this silence the connection is asked whether it lives, and as long it has to answer. etcd ends the
/// connections of clients that ask oftener than it likes (5 s by default) more than twice between two calls;
/// the lease is refreshed at least every [`super::session::KEEP_ALIVE_AT_MOST`], so that this does not happen.
const PING: Duration = Duration::from_secs(2);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(5);
/// The longest message that is taken in. etcd itself sends up to 2 MiB of events in one, but a page of any size.
const LONGEST: usize = 8 << 20;

/// A connection, and the token that its calls carry.
pub(super) struct Client {
    channel: Channel,
    config: Cluster,
    token: RefCell<Option<MetadataValue<Ascii>>>,
}

impl Client {
    /// Connects to one endpoint, and logs in where a user is configured.
    pub(super) async fn connect(endpoint: &str, config: &Cluster) -> Result<Self, Status> {
        let endpoint = dial(endpoint, config).map_err(Status::invalid_argument)?;
        let channel = match timeout(CONNECT, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| Status::unavailable(causes(&error)))?,
            Err(_) => return Err(Status::unavailable("connecting takes too long")),
        };
        let client = Self { channel, config: config.clone(), token: RefCell::new(None) };
        client.log_in().await?;
        Ok(client)
    }

    /// Fetches a new token, where a user is configured.
    async fn log_in(&self) -> Result<(), Status> {
        let Some(name) = self.config.user.clone() else { return Ok(()) };
        let password = password(&self.config).map_err(Status::invalid_argument)?;
        let request = Request::new(AuthenticateRequest { name, password });
        let response: Result<AuthenticateResponse, Status> =
            self.call("/etcdserverpb.Auth/Authenticate", request).await;
        let token = match response {
            Ok(response) => response.token.parse().map_err(|_| Status::internal("a token of odd bytes"))?,
            // Nobody is asked for a token yet; when one is needed, calls are refused and come here again.
            Err(status) if status.code() == Code::FailedPrecondition => return Ok(()),
            Err(status) => return Err(status),
        };
        self.token.replace(Some(token));
        Ok(())
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(LONGEST)
    }

    /// A request with the token, and the wish that a member without a leader refuses.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token.borrow().as_ref() {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn call<Q, A>(&self, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            let uri = Uri::from_static(path);
            let path = uri.path_and_query().cloned().expect("every path above is one");
            let response = grpc.server_streaming(request, path, ProstCodec::<Q, A>::default()).await?;
            let message = response.into_inner().message().await?;
            message.ok_or_else(|| Status::internal("an answer without a message"))
        };
        timeout(CALL, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    /// A call; with a new token a second time where the first was refused for it.
    async fn ask<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let refused = match self.call(path, self.request(message.clone())).await {
            Err(status) if self.config.user.is_some() && wants_token(&status) => status,
            other => return other,
        };
        self.log_in().await.map_err(|_| refused)?;
        self.call(path, self.request(message)).await
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.ask("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.ask("/etcdserverpb.KV/Txn", request).await
    }

    pub(super) async fn grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        self.ask("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        self.ask("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest { id }).await
    }

    /// One refresh of a lease. etcd has this as a stream of which any number may be asked and answered; one at a
    /// time has the time limit and the token of a call.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        self.ask("/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveRequest { id }).await
    }

    /// The stream of watches. It answers only when the first request has gone out, which must wait in `requests`.
    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let call = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            let path = Uri::from_static("/etcdserverpb.Watch/Watch");
            let path = path.path_and_query().cloned().expect("it is one");
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            grpc.streaming(self.request(requests), path, codec).await
        };
        let answer = timeout(CALL, call).await;
        Ok(answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?.into_inner())
    }
}

/// Whether a call was refused for want of a token, for an old one, or for one from before a change of users.
pub(super) fn wants_token(status: &Status) -> bool {
    let words = status.message();
    status.code() == Code::Unauthenticated || speaks_of_token(words)
}

/// The same of the words alone, which are all that a cancelled watch has.
pub(super) fn speaks_of_token(words: &str) -> bool {
    ["invalid auth token", "user name is empty", "revision in header is old", "auth revision"]
        .iter()
        .any(|known| words.contains(known))
}

/// What went wrong, in one line.
pub(super) fn reason(status: &Status) -> String {
    let words = if status.message().is_empty() { status.code().description() } else { status.message() };
    match status.source() {
        Some(source) => format!("{words}: {}", causes(source)),
        None => words.to_owned(),
    }
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// How an endpoint is connected to. The files of certificates are read anew each time, so that renewed ones count.
///
/// # Errors
/// What is wrong with the address or with a file.
pub(super) fn dial(endpoint: &str, config: &Cluster) -> Result<Endpoint, String> {
    let wrong = |error: &dyn std::error::Error| format!("{endpoint}: {}", causes(error));
    let uri: Uri = endpoint.parse().map_err(|error| wrong(&error))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("{endpoint}: neither http:// nor https://")),
    };
    let dialled = Endpoint::from(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .tcp_nodelay(true);
    if !secure {
        return Ok(dialled);
    }
    let read =
        |path: &std::path::Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let Some(ca) = &config.cacert else { return Err(format!("{endpoint}: https needs cacert")) };
    let mut tls = ClientTlsConfig::new().domain_name(host).ca_certificate(Certificate::from_pem(read(ca)?));
    if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    dialled.tls_config(tls).map_err(|error| wrong(&error))
}

fn password(config: &Cluster) -> Result<String, String> {
    let Some(path) = &config.password_file else { return Ok(config.password.clone().unwrap_or_default()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
