//! Work that blocks: it runs off the reactor, in its turn.

use certseal_service::problem::Refusal;
use tokio::sync::Semaphore;

/// Runs `work`, which touches the disk, off the reactor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = TURNS.acquire().await.map_err(Refusal::internal)?;
    let work = move || {
        // The turn ends with the work, also if the caller has gone.
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)?
}

/// Turns for work that blocks: more than the large requests that are let in at one time. Hundreds of threads wake each other
/// up more than they work: with 8 of them on two cores there were 1.2 times as many puts as with the runtime's usual 512.
static TURNS: Semaphore = Semaphore::const_new(16);
