//! The backend for more than one machine: PostgreSQL, and what speaks its protocol and SQL.
//!
//! Any number of stores, in any number of processes, share one database: their writes follow each other, and each sees
//! the others' in the one feed. `docs/decisions/0011-postgres-group-commit.md` has the reasons.
//!
//! Submodules: [`settings`] the configuration file's, [`options`] connection string and TLS, [`session`] one connection, [`schema`] tables, [`meta`] the rows
//! of the store and its writers, [`writer`] group commit, [`group`] conditions and net effect, [`statements`] its SQL,
//! [`reader`] records and lists, [`shared`] what is known to be durable, [`failure`] what is worth another try, [`portable`] copies
//! from and to other engines.

mod failure;
mod group;
mod meta;
mod options;
mod portable;
mod reader;
mod schema;
mod session;
mod settings;
mod shared;
mod statements;
mod writer;

use std::{
    fmt,
    future::Future,
    sync::{Arc, mpsc},
    time::Duration,
};

use deadpool::managed::Pool;
use tokio::runtime::Runtime;

use self::{
    failure::{Fault, persistently},
    reader::Reader,
    session::{Connector, Session},
    shared::Shared,
    writer::Writer,
};
pub use self::{options::PostgresOptions, settings::PostgresSettings};
use crate::{
    AuditEnds, AuditEntry, Done, Entry, Position, Record, Storage, StoreError, Table, Transaction,
    queue::{Queue, Work},
};

/// A [`Storage`] in a PostgreSQL database.
///
/// Acknowledged means what the server's `synchronous_commit` and its synchronous replicas say; a server that does not
/// even sync its own disk is refused. Several stores may be open at once. Dropping one finishes what was committed.
///
/// After [`StoreError::Unavailable`] the outcome of a commit is unknown, and the store goes on trying with the next one.
pub struct PostgresStore {
    queue: Queue,
    reader: Arc<Reader>,
    shared: Arc<Shared>,
    max_value_bytes: usize,
    give_up: Duration,
    /// Runs the connections. Always there until the store is dropped.
    runtime: Option<Runtime>,
}

impl PostgresStore {
    /// Connects, makes or migrates the tables in the schema `certseal`, and begins a store in an empty one.
    pub fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        Self::start(options, None)
    }

    /// Opens a database that was restored from a copy, whatever position it has, under a new epoch.
    ///
    /// Every reader of the feed then notices that its cursor belongs to another history. Stores that are open
    /// elsewhere refuse to go on until they are opened again.
    pub fn open_restored(options: PostgresOptions) -> Result<Self, StoreError> {
        Self::start(options, Some(random()?))
    }

    fn start(options: PostgresOptions, new_epoch: Option<[u8; 16]>) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(&options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .map_err(StoreError::io("start threads for", "the database's connections"))?;
        let (id, witness, epoch) = (random()?, random()?, random()?);
        let opening = {
            let connector = Arc::clone(&connector);
            async move {
                persistently(options.give_up, || async {
                    let session = connector.connect().await?;
                    opened(&session, [id, witness], epoch, new_epoch).await
                })
                .await
            }
        };
        let proven = waited_for(&runtime, opening)?;

        let shared = Arc::new(Shared::new(proven));
        let sessions = Pool::builder(Connector::new(&options)?)
            .max_size(options.pool_size.max(1))
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(options.give_up))
            .build()
            .map_err(|error| StoreError::Options { problem: error.to_string() })?;
        let (give_up, doubt_after) = (options.give_up, options.statement_timeout);
        let reader = Arc::new(Reader { sessions, shared: Arc::clone(&shared), witness, give_up, doubt_after });
        runtime.spawn(Arc::clone(&reader).show_forever(id));

        let mut writer = Writer::new(connector, Arc::clone(&shared), id, &options);
        let handle = runtime.handle().clone();
        let queue = Queue::start(move |group| handle.block_on(writer.acknowledged(group)))?;
        let max_value_bytes = options.max_value_bytes;
        Ok(Self { queue, reader, shared, max_value_bytes, give_up, runtime: Some(runtime) })
    }

    fn read<T, F>(&self, read: impl FnOnce(Arc<Reader>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        match &self.runtime {
            Some(runtime) => waited_for(runtime, read(Arc::clone(&self.reader))),
            None => Err(StoreError::Failed { cause: "the store is closed".to_owned() }),
        }
    }
}

impl Storage for PostgresStore {
    fn submit(&self, transaction: Transaction, done: Done) {
        let accepted =
            transaction.check_size(self.max_value_bytes).and_then(|()| statements::check_numbers(&transaction));
        match accepted {
            Ok(()) if transaction.is_empty() => done(self.head()),
            Ok(()) => self.queue.submit(Work::Apply(transaction), done),
            Err(refused) => done(Err(refused)),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.read(move |reader| async move { reader.record(table, &key).await })
    }

    fn get_all(&self, keys: &[(Table, &[u8])]) -> Result<Vec<Option<Record>>, StoreError> {
        let keys: Vec<_> = keys.iter().map(|(table, key)| (*table, (*key).to_owned())).collect();
        self.read(move |reader| async move { reader.all(&keys).await })
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let after = after.map(<[u8]>::to_owned);
        self.read(move |reader| async move { reader.after(table, after.as_deref(), limit).await })
    }

    fn scan_prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |reader| async move { reader.with_prefix(table, &prefix, limit).await })
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.read(|reader| async move { reader.head().await })
    }

    fn feed(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(move |reader| async move { reader.feed(after, limit).await })
    }

    fn expired(&self, table: Table, now: u64, limit: usize) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
        self.read(move |reader| async move { reader.expired(table, now, limit).await })
    }

    fn floor(&self) -> Result<u64, StoreError> {
        self.read(|reader| async move { reader.floor().await })
    }

    fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |reader| async move { reader.audit(after, limit).await })
    }

    fn audit_ends(&self) -> Result<AuditEnds, StoreError> {
        self.read(|reader| async move { reader.audit_ends().await })
    }

    fn drop_audit(&self, through: u64) -> Result<(), StoreError> {
        self.queue.ask(Work::DropAudit(through)).map(drop)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.queue.healthy()?;
        if self.shared.in_contact_within(FRESH) {
            return Ok(());
        }
        let patience = FRESH.min(self.give_up);
        self.read(move |reader| async move {
            let answer = tokio::time::timeout(patience, reader.ping()).await;
            answer.unwrap_or_else(|_| Err(Fault::timeout("ask for an answer", patience))).map_err(|fault| {
                reader.shared.out_of_contact(&fault.error);
                fault.given_up(patience)
            })
        })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.queue.finish();
        if let Some(runtime) = self.runtime.take() {
            // Waiting here would panic where a reactor drops the store.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("proven", &self.shared.proven()).finish_non_exhaustive()
    }
}

/// Makes the database ready for this store; answers where it is, which is durable then.
async fn opened(
    session: &Session,
    [id, witness]: [[u8; 16]; 2],
    epoch: [u8; 16],
    new_epoch: Option<[u8; 16]>,
) -> Result<Position, Fault> {
    schema::migrate(session).await?;
    meta::create(session, epoch).await?;
    if let Some(epoch) = new_epoch {
        session.run("begin", meta::BEGIN).await?;
        let mut state = meta::lock(session).await?;
        state.position.epoch = epoch;
        meta::store(session, &state).await?;
        session.commit(meta::COMMIT_PATIENCE).await?;
    }
    let found = meta::read(session).await?;
    verify_audit_end(session, found.audit).await?;
    // Registering commits, after what was read: so that is durable.
    meta::register(session, witness).await?;
    meta::register(session, id).await?;
    Ok(found.position)
}

/// Refuses a log whose last entry is not the one that was appended last. The whole chain is verified by who reads it.
async fn verify_audit_end(session: &Session, ends: AuditEnds) -> Result<(), Fault> {
    let last = "SELECT number, hash FROM certseal.audit ORDER BY number DESC LIMIT 1";
    let rows = session.query("read the end of the audit log", last, &[]).await?;
    let found = rows.first().map_or(Ok(ends.start), |row| meta::link(row, 0))?;
    // Between reading the row and the entry another store may have appended.
    if found != ends.head && found.number <= ends.head.number {
        return Err(Fault::lasting(StoreError::AuditDamaged { number: ends.head.number }));
    }
    Ok(())
}

/// Runs on the store's own threads and waits for it: callers may be on a reactor of their own, where blocking on a
/// future would panic.
fn waited_for<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody leaves before the answer.
        let _ = reply.send(future.await);
    });
    answer.recv().unwrap_or_else(|_| Err(StoreError::Failed { cause: "a connection's task ended".to_owned() }))
}

fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::io("read", "the system's randomness")(std::io::Error::other(error.to_string())))?;
    Ok(bytes)
}

/// How old the last answer of the server may be before it is asked again.
const FRESH: Duration = Duration::from_secs(3);
