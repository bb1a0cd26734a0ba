//! An ACME CA (RFC 8555), with http-01 (8.3).

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use certseal_issuance::{Answer, Failure, FailureKind, OrderState};
use certseal_seal::secret_pem;
use certseal_service::{
    config::{self, ConfigError},
    tls,
};
use certseal_wire::{DnsName, NameSet, causes};
use http::{Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient, Identifier, Key,
    NewOrder, Order, OrderStatus, RevocationReason, RevocationRequest,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

pub(crate) struct AcmeAuthority {
    directory: String,
    profile: Option<String>,
    account_key: PathBuf,
    http: Http,
    account: OnceCell<Account>,
}

impl AcmeAuthority {
    /// A CA by its directory. Nothing is sent yet. The account's key is kept in `data_dir`.
    pub(crate) fn new(
        directory: String,
        roots: &Path,
        profile: Option<String>,
        data_dir: &Path,
    ) -> Result<Self, ConfigError> {
        let http = Http::new(roots)?;
        let account_key = data_dir.join("acme-account.key");
        Ok(Self { directory, profile, account_key, http, account: OnceCell::new() })
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) async fn thumbprint(&self) -> Result<String, Failure> {
        self.account().await.map(|account| account.key_thumbprint().to_owned())
    }

    pub(crate) async fn open_order(&self, names: &NameSet) -> Result<String, Failure> {
        let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
        let mut request = NewOrder::new(&identifiers);
        if let Some(profile) = &self.profile {
            request = request.profile(profile);
        }
        let order = self.account().await?.new_order(&request).await.map_err(failure)?;
        Ok(order.url().to_owned())
    }

    pub(crate) async fn challenges(&self, order_url: &str, names: &NameSet) -> Result<Vec<Answer>, Failure> {
        let mut order = self.order(order_url).await?;
        let mut authorizations = order.authorizations();
        let mut answers = Vec::new();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            let host = ordered(&authorization.identifier().to_string(), names)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(rejected(format!("the authorization of {host} is {other:?}"))),
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let challenge =
                challenge.ok_or_else(|| hopeless(format!("the CA offers no http-01 challenge for {host}")))?;
            answers.push(Answer {
                host,
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
            });
        }
        Ok(answers)
    }

    pub(crate) async fn begin_validation(&self, order_url: &str) -> Result<(), Failure> {
        let mut order = self.order(order_url).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) {
                challenge.set_ready().await.map_err(failure)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn order_state(&self, order_url: &str) -> Result<OrderState, Failure> {
        let mut order = self.order(order_url).await?;
        match order.state().status {
            OrderStatus::Pending => Ok(OrderState::Pending),
            OrderStatus::Ready => Ok(OrderState::Ready),
            OrderStatus::Processing => Ok(OrderState::Processing),
            OrderStatus::Valid => Ok(OrderState::Valid),
            OrderStatus::Invalid => Err(rejected(diagnosis(&mut order).await)),
        }
    }

    pub(crate) async fn abandon(&self, order_url: &str) -> Result<(), Failure> {
        let mut order = match self.order(order_url).await {
            Ok(order) => order,
            Err(failure) if failure.kind == FailureKind::Rejected => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failure)?;
            if authorization.status == AuthorizationStatus::Pending {
                authorization.deactivate().await.map_err(failure)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn revoke(&self, leaf: &[u8]) -> Result<(), Failure> {
        let certificate = CertificateDer::from(leaf);
        let request = RevocationRequest { certificate: &certificate, reason: Some(RevocationReason::KeyCompromise) };
        match self.account().await?.revoke(&request).await {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(ALREADY_REVOKED) => Ok(()),
            // A CA without that interface never gets one while it is waited for.
            Err(error @ Error::Str(_)) => Err(rejected(format!("the CA: {}", causes(&error)))),
            other => other.map_err(failure),
        }
    }

    pub(crate) async fn finalize(&self, order_url: &str, csr: &[u8]) -> Result<(), Failure> {
        self.order(order_url).await?.finalize_csr(csr).await.map_err(failure)
    }

    pub(crate) async fn certificate(&self, order_url: &str) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let mut order = self.order(order_url).await?;
        match order.state().status {
            OrderStatus::Processing => return Ok(None),
            OrderStatus::Valid => {}
            _ => return Err(rejected(diagnosis(&mut order).await)),
        }
        let Some(text) = order.certificate().await.map_err(failure)? else { return Ok(None) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.map_err(|e| rejected(format!("the CA's chain is not PEM certificates: {e}")))?;
        Ok(Some(chain.into_iter().map(|der| der.to_vec()).collect()))
    }

    async fn order(&self, url: &str) -> Result<Order, Failure> {
        let order = self.account().await?.order(url.to_owned()).await;
        order.map_err(|error| match error {
            // An order that the CA has forgotten is over: begin anew.
            Error::Api(problem) if problem.status == Some(404) => rejected(problem),
            other => failure(other),
        })
    }

    /// The account. Its key is durable before the CA hears of it, and the CA finds the account by the key: a process
    /// that dies in between leaves no account behind.
    async fn account(&self) -> Result<&Account, Failure> {
        self.account
            .get_or_try_init(|| async {
                let key = self.load_or_make_key().map_err(|e| Failure::new(FailureKind::Unavailable, e))?;
                let (account, _) = Account::builder_with_http(Box::new(self.http.clone()))
                    .create_from_key(key, self.directory.clone())
                    .await
                    .map_err(failure)?;
                tracing::info!(directory = self.directory, account = account.id(), "ACME account is ready");
                Ok(account)
            })
            .await
    }

    fn load_or_make_key(&self) -> anyhow::Result<(Key, PrivateKeyDer<'static>)> {
        if !self.account_key.exists() {
            let (_, der) = Key::generate_pkcs8()?;
            let der = Zeroizing::new(der);
            let text = secret_pem::encode_crlf("PRIVATE KEY", der.secret_pkcs8_der());
            config::write_private(&self.account_key, &text)?;
        }
        let text = config::read_private(&self.account_key)?;
        let (_, der) = secret_pem::decode(text.as_bytes())
            .filter(|(tag, _)| *tag == "PRIVATE KEY")
            .with_context(|| format!("expected a PEM private key in {}", self.account_key.display()))?;
        let der = PrivatePkcs8KeyDer::from(der.to_vec());
        Ok((Key::from_pkcs8_der(der.clone_key())?, der.into()))
    }
}

/// The host of an authorization, which must be one of the order's: a CA that names another one would have certman sign a
/// challenge for it, and edges answer.
fn ordered(host: &str, names: &NameSet) -> Result<DnsName, Failure> {
    let found = host.parse::<DnsName>().ok().filter(|host| names.iter().any(|name| name == host));
    found.ok_or_else(|| {
        let host: String = host.chars().take(253).collect();
        rejected(format!("the CA asks for an authorization of {host:?}, which is not a name of the order"))
    })
}

/// The CA's complaint about each name of a failed order.
async fn diagnosis(order: &mut Order) -> String {
    let mut found = Vec::new();
    if let Some(error) = &order.state().error {
        found.push(error.to_string());
    }
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let host = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|error| format!("{host}: {error}")));
    }
    if found.is_empty() { "the CA gave no reason".to_owned() } else { found.join("; ") }
}

fn rejected(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Rejected, detail)
}

fn hopeless(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Hopeless, detail)
}

/// The failure that follows from an error of the ACME client.
fn failure(error: Error) -> Failure {
    let kind = match &error {
        Error::Api(problem) => {
            let name = problem.r#type.as_deref().and_then(|name| name.strip_prefix("urn:ietf:params:acme:error:"));
            match name {
                Some("rateLimited") => FailureKind::Throttled(60),
                Some("rejectedIdentifier" | "unsupportedIdentifier" | "invalidProfile" | "userActionRequired") => {
                    FailureKind::Hopeless
                }
                Some("serverInternal" | "badNonce" | "orderNotReady") | None => FailureKind::Unavailable,
                Some(_) => FailureKind::Rejected,
            }
        }
        Error::Other(other) => match other.downcast_ref::<Busy>() {
            Some(busy) => FailureKind::Throttled(busy.retry_after),
            None => FailureKind::Unavailable,
        },
        _ => FailureKind::Unavailable,
    };
    Failure::new(kind, format!("the CA: {}", causes(&error)))
}

/// A CA that asks to come back later: 429 or 503 (RFC 8555, 6.6). `instant-acme` drops headers of errors, so it is
/// caught here, below it.
#[derive(Debug, thiserror::Error)]
#[error("{status}, come back in {retry_after} s: {detail}")]
struct Busy {
    status: StatusCode,
    retry_after: u64,
    detail: String,
}

/// No answer, and why; with the address, which neither hyper nor a time-out tells.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

impl Unanswered {
    fn new(host: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = causes(error);
        let hint = if causes.contains("invalid peer certificate") {
            "; `roots` of [authority] names the CAs that may certify it"
        } else {
            ""
        };
        Self(format!("cannot reach {host}: {causes}{hint}"))
    }
}

/// An HTTP client with time-outs and bounded answers.
#[derive(Clone)]
struct Http(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Http {
    fn new(roots: &Path) -> Result<Self, ConfigError> {
        let mut store = rustls::RootCertStore::empty();
        let (_, _ignored) = store.add_parsable_certificates(tls::certificates(roots)?);
        let tls = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| ConfigError::invalid(roots, e))?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        Ok(Self(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let exchange = self.0.request(request);
        Box::pin(async move {
            let answer = async {
                let response = exchange.await.map_err(|e| other(Unanswered::new(&host, &e)))?;
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let body = body.map_err(|e| {
                    other(Unanswered(format!(
                        "the answer of {host} broke off or exceeds {MAX_ANSWER} octets: {}",
                        causes(&*e)
                    )))
                })?;
                let body = body.to_bytes();
                if matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                    let retry_after =
                        parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                    let detail = String::from_utf8_lossy(&body).chars().take(500).collect();
                    return Err(other(Busy { status: parts.status, retry_after: retry_after.unwrap_or(60), detail }));
                }
                Ok(BytesResponse::from(http::Response::from_parts(parts, Full::new(body))))
            };
            let late = || other(Unanswered(format!("no answer from {host} within {} s", PATIENCE.as_secs())));
            tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

const ALREADY_REVOKED: &str = "urn:ietf:params:acme:error:alreadyRevoked";
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
