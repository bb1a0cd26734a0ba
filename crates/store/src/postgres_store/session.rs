//! One connection with the server that accepts writes, in the state that promises of durability need.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Row, Statement,
    config::LoadBalanceHosts,
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
    /// One for each host.
    hosts: Vec<Config>,
    /// The index of the host that took the last session.
    last: AtomicUsize,
    tls: Option<MakeRustlsConnect>,
    statement_timeout: Duration,
    /// How long one host may take in all: the client's own limit ends where the server has taken the connection.
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
        let (hosts, tls) = (options.hosts()?, options.tls()?);
        let patience = options.connect_timeout + SLACK;
        Ok(Self { hosts, last: AtomicUsize::new(0), tls, statement_timeout: options.statement_timeout, patience })
    }

    /// Connects to a host that accepts writes, and refuses one that would lose them.
    ///
    /// One host after the other, each with a head start: one that hangs still takes connections, since the kernel does
    /// that, and must not keep us from the others.
    pub(super) async fn connect(&self) -> Result<Session, Fault> {
        let first = self.first();
        let mut waiting = (first..self.hosts.len()).chain(0..first).peekable();
        let (mut tries, mut refused) = (JoinSet::new(), None);
        loop {
            if let Some(index) = waiting.next() {
                let connected = self.connected(index);
                tries.spawn(async move { (index, connected.await) });
            }
            let patience = if waiting.peek().is_some() { HEAD_START } else { Duration::MAX };
            match tokio::time::timeout(patience, tries.join_next()).await {
                Ok(Some(Ok((index, Ok(session))))) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Some(Ok((_, Err(fault @ Fault { error: StoreError::UnsafeServer { .. }, .. }))))) => {
                    return Err(fault);
                }
                Ok(Some(Ok((_, Err(fault))))) => refused = Some(fault),
                Ok(Some(Err(error))) => {
                    refused = Some(Fault::lasting(StoreError::Failed { cause: error.to_string() }));
                }
                // There is a host in every connection string that is accepted.
                Ok(None) => return Err(refused.unwrap_or_else(|| Fault::timeout("connect", self.patience))),
                Err(_) => {}
            }
        }
    }

    /// The host to begin with. It is the one that accepted writes the last time, unless all of several do.
    fn first(&self) -> usize {
        let spreads = self.hosts.iter().any(|host| host.get_load_balance_hosts() == LoadBalanceHosts::Random);
        match spreads.then(getrandom::u32) {
            Some(Ok(random)) => random as usize % self.hosts.len(),
            _ => self.last.load(Ordering::Relaxed),
        }
    }

    fn connected(&self, index: usize) -> impl Future<Output = Result<Session, Fault>> + Send + use<> {
        let (host, tls, patience) = (self.hosts[index].clone(), self.tls.clone(), self.patience);
        let statement_timeout = self.statement_timeout;
        let connected = async move {
            let refused = Fault::new("connect");
            let session = match tls {
                None => {
                    let (client, connection) = host.connect(NoTls).await.map_err(refused)?;
                    Session::new(client, connection, statement_timeout)
                }
                Some(tls) => {
                    let (client, connection) = host.connect(tls).await.map_err(refused)?;
                    Session::new(client, connection, statement_timeout)
                }
            };
            session.make_safe().await?;
            Ok(session)
        };
        async move {
            let connected = tokio::time::timeout(patience, connected).await;
            connected.unwrap_or_else(|_| Err(Fault::timeout("connect", patience)))
        }
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
        if session.is_closed() { Err(managed::RecycleError::message("the connection is closed")) } else { Ok(()) }
    }
}

const SETTINGS: &str = "SELECT name::text, setting::text FROM pg_settings \
     WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')";

/// How long a host is waited for before the next one is tried as well.
const HEAD_START: Duration = Duration::from_secs(1);

const SLACK: Duration = Duration::from_secs(2);
