//! One connection with the server that accepts writes, in the state that promises of durability need.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool::managed;
use tokio::task::JoinHandle;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Row, Statement,
    error::Severity,
    tls::TlsStream,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresOptions, failure::Fault};
use crate::StoreError;

/// A parameter of a statement with its type, so that no round trip is spent on asking the server for it.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Makes sessions.
pub(super) struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    statement_timeout: Duration,
    /// How long connecting may take in all: the client's own limit ends where the server has taken the connection.
    patience: Duration,
}

/// A connection; dropping it closes it, whatever is under way on it.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    statements: Mutex<HashMap<String, Statement>>,
    /// Set when the server warned.
    warned: Arc<AtomicBool>,
    /// How long to wait for a reply: longer than the server's own limit, whose error says more.
    patience: Duration,
    statement_timeout: Duration,
}

impl Connector {
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let (config, tls) = (options.config()?, options.tls()?);
        let addresses = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        let patience = options.connect_timeout * u32::try_from(addresses).unwrap_or(u32::MAX) + SLACK;
        Ok(Self { config, tls, statement_timeout: options.statement_timeout, patience })
    }

    /// Connects to the first host that accepts writes, and refuses one that would lose them.
    pub(super) async fn connect(&self) -> Result<Session, Fault> {
        let connected = tokio::time::timeout(self.patience, self.connected()).await;
        connected.unwrap_or_else(|_| Err(Fault::timeout("connect", self.patience)))
    }

    async fn connected(&self) -> Result<Session, Fault> {
        let refused = Fault::new("connect");
        let session = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(refused)?;
                Session::new(client, connection, self.statement_timeout)
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(refused)?;
                Session::new(client, connection, self.statement_timeout)
            }
        };
        session.make_safe().await?;
        Ok(session)
    }
}

impl Session {
    fn new<S, T>(client: Client, mut connection: Connection<S, T>, statement_timeout: Duration) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: TlsStream + Unpin + Send + 'static,
    {
        let warned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&warned);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    tracing::debug!(severity = notice.severity(), message = notice.message(), "the database says");
                    if notice.parsed_severity() == Some(Severity::Warning) {
                        // Before the reply that it belongs to is handed on, since both come by this loop in order.
                        flag.store(true, Ordering::Release);
                    }
                }
            }
        });
        let statements = Mutex::default();
        Self { client, driver, statements, warned, patience: statement_timeout + SLACK, statement_timeout }
    }

    /// Sees to the settings that an acknowledgement rests on. Servers may differ, so each session looks anew.
    async fn make_safe(&self) -> Result<(), Fault> {
        let rows = self.query("read the settings of the server", SETTINGS, &[]).await?;
        let mut weak = false;
        for row in rows {
            let unreadable = Fault::unreadable("read the settings of the server");
            let name: String = row.try_get(0).map_err(&unreadable)?;
            let value: String = row.try_get(1).map_err(&unreadable)?;
            match (name.as_str(), value.as_str()) {
                ("fsync", "off") => {
                    return Err(Fault::lasting(StoreError::UnsafeServer { setting: "fsync", value, expected: "on" }));
                }
                ("full_page_writes", "off") => {
                    tracing::warn!("the database server has full_page_writes = off: a power cut may tear its pages");
                }
                ("synchronous_commit", "off" | "local" | "remote_write") => weak = true,
                _ => {}
            }
        }
        let limit = self.statement_timeout.as_millis();
        let strengthen = if weak { "SET synchronous_commit = on;" } else { "" };
        self.run("set up a session", &format!("SET statement_timeout = {limit};{strengthen}")).await
    }

    pub(super) async fn query(
        &self,
        action: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Fault> {
        let rows = async {
            let prepared = self.prepared(statement, parameters).await?;
            self.client.query(&prepared, &values(parameters)).await
        };
        self.within(action, rows).await
    }

    /// The number of rows that were changed.
    pub(super) async fn execute(
        &self,
        action: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Fault> {
        let changed = async {
            let prepared = self.prepared(statement, parameters).await?;
            self.client.execute(&prepared, &values(parameters)).await
        };
        self.within(action, changed).await
    }

    /// The statement as the server parsed and planned it, the first time that this session needs it. Statements are few:
    /// their texts hold no data.
    async fn prepared(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Statement, tokio_postgres::Error> {
        let known = self.statements().get(statement).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let types: Vec<Type> = parameters.iter().map(|(_, of)| of.clone()).collect();
        let prepared = self.client.prepare_typed(statement, &types).await?;
        self.statements().insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }

    fn statements(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        // Every change is complete at each step.
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, action: &'static str, statements: &str) -> Result<(), Fault> {
        self.within(action, self.client.batch_execute(statements)).await
    }

    /// Commits, and waits for the replicas that the server waits for. An error leaves the outcome unknown.
    ///
    /// A server whose wait for its replicas is cancelled, by the statement timeout as much as by an administrator,
    /// reports success with a warning: committed here, perhaps nowhere else. So the timeout is off while it commits,
    /// and a warning counts as an error.
    pub(super) async fn commit(&self, patience: Duration) -> Result<(), Fault> {
        self.run("prepare a commit", "SET LOCAL statement_timeout = 0").await?;
        self.warned.store(false, Ordering::Release);
        match tokio::time::timeout(patience, self.client.batch_execute("COMMIT")).await {
            Err(_) => Err(Fault::timeout("commit", patience)),
            Ok(Err(error)) => Err(Fault::new("commit")(error)),
            Ok(Ok(())) if self.warned.load(Ordering::Acquire) => Err(Fault::passing(StoreError::Database {
                action: "commit",
                cause: "the server warned that its replicas may lack the commit".to_owned(),
            })),
            Ok(Ok(())) => Ok(()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn within<T>(
        &self,
        action: &'static str,
        reply: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(self.patience, reply).await {
            Ok(reply) => reply.map_err(Fault::new(action)),
            Err(_) => Err(Fault::timeout(action, self.patience)),
        }
    }
}

fn values<'a>(parameters: &[Parameter<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|(value, _)| *value).collect()
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without this the connection would stay open until the server has answered everything.
        self.driver.abort();
    }
}

impl managed::Manager for Connector {
    type Type = Session;
    type Error = Fault;

    async fn create(&self) -> Result<Session, Fault> {
        self.connect().await
    }

    async fn recycle(&self, session: &mut Session, _: &managed::Metrics) -> managed::RecycleResult<Fault> {
        match session.is_closed() {
            true => Err(managed::RecycleError::message("the connection is closed")),
            false => Ok(()),
        }
    }
}

const SETTINGS: &str = "SELECT name::text, setting::text FROM pg_settings \
     WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')";

const SLACK: Duration = Duration::from_secs(2);
