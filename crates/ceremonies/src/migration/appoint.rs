//! Telling certman when to renew which site.

use certseal_client::{CertmanClient, ClientError, Progress};
use certseal_wire::{DnsName, Renewal};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::task::JoinSet;

use super::pace::Appointment;
use crate::error::{Error, MigrationError};

/// The outcome for the sites of a plan by renewal: counts, and the failures.
#[derive(Debug, Default, Serialize)]
pub struct Appointed {
    /// Sites that certman renews at the planned time, or before.
    pub planned: u64,
    /// Sites that have another certificate since the plan was made, or an order for one.
    pub passed_over: u64,
    /// Sites that certman does not have renewed, and why.
    pub failed: Vec<(DnsName, String)>,
}

/// Tells certman the times of a plan. It can be run again.
///
/// # Errors
/// When certman cannot be reached, or the plan is from so long ago that its first sites would all be renewed at once.
pub async fn appoint(
    certman: &CertmanClient,
    sites: &[Appointment],
    now: Timestamp,
    progress: &dyn Progress,
) -> Result<Appointed, Error> {
    progress.begin("planning renewals", sites.len() as u64);
    let mut outcome = Appointed::default();
    let mut calls: JoinSet<(DnsName, Result<Done, ClientError>)> = JoinSet::new();
    let mut late = 0;
    let mut waiting = sites.iter();
    loop {
        if calls.len() < CALLS
            && let Some(appointment) = waiting.next()
        {
            let (certman, appointment) = (certman.clone(), appointment.clone());
            calls.spawn(async move {
                let done = appoint_one(&certman, &appointment, now).await;
                (appointment.site, done)
            });
            continue;
        }
        let Some(done) = calls.join_next().await else { break };
        progress.advance(1);
        match done.map_err(MigrationError::stopped("a call"))? {
            (_, Ok(Done::Planned)) => outcome.planned += 1,
            (_, Ok(Done::PassedOver)) => outcome.passed_over += 1,
            (_, Ok(Done::Late)) => late += 1,
            (_, Err(error)) if error.may_pass() => return Err(error.into()),
            (site, Err(error)) => outcome.failed.push((site, error.to_string())),
        }
    }
    if late > 0 {
        return Err(MigrationError::Late(late).into());
    }
    Ok(outcome)
}

enum Done {
    Planned,
    PassedOver,
    Late,
}

async fn appoint_one(certman: &CertmanClient, one: &Appointment, now: Timestamp) -> Result<Done, ClientError> {
    let Some(status) = certman.site(&one.site).await? else { return Ok(Done::PassedOver) };
    if status.version > one.version || status.order.is_some() {
        return Ok(Done::PassedOver);
    }
    if status.renew_at.is_some_and(|renew_at| renew_at <= one.at) {
        return Ok(Done::Planned);
    }
    if now.duration_since(one.at) > LATE {
        return Ok(Done::Late);
    }
    certman.renew(&one.site, &Renewal { at: Some(one.at) }).await?;
    Ok(Done::Planned)
}

/// After its time, a renewal is still begun at once.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// Calls under way at one time.
const CALLS: usize = 16;
