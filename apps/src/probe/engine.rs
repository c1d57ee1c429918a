//! From a batch to records.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;

use super::client::Client;
use super::model::{Batch, Connection, Keep, Request};
use super::record::Record;
use super::{Connect, Sockets};

/// Sends a batch. The records are in the order of the requests; a repeated list follows itself.
///
/// Requests of a named connection form a lane that one worker sends in order; every other request is a lane of its own.
/// As many workers as the batch's concurrency take lanes in order. All run in the calling task.
pub async fn run(batch: &Batch, connect: &dyn Connect) -> Vec<Record> {
    let total = batch.requests.len() * batch.repeat.unwrap_or(1);
    let lanes = Mutex::new(lanes(batch, total));
    let ids = Arc::new(AtomicU64::new(0));
    let clock = Instant::now();
    let worker = || async {
        let mut client = Client::of_batch(connect, Arc::clone(&ids), clock);
        let mut records = Vec::new();
        loop {
            let lane = lanes.lock().pop_front();
            let Some(lane) = lane else { return records };
            for index in lane {
                let record = match batch.repeat {
                    None => client.send(&batch.requests[index], batch.keep).await,
                    Some(_) => client.send(&nth(batch, index), batch.keep).await,
                };
                records.push((index, record));
            }
        }
    };
    let workers = batch.concurrency.clamp(1, total.max(1));
    let mut records = futures::future::join_all((0..workers).map(|_| worker())).await.concat();
    records.sort_unstable_by_key(|(index, _)| *index);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Sends one request over a plain socket, or one of the caller's, and keeps everything.
pub async fn send(request: &Request, connect: Option<&dyn Connect>) -> Record {
    Client::new(connect.unwrap_or(&Sockets)).send(request, Keep::All).await
}

fn nth(batch: &Batch, index: usize) -> Request {
    batch.requests[index % batch.requests.len()].indexed(index)
}

fn lanes(batch: &Batch, total: usize) -> VecDeque<Vec<usize>> {
    let mut lanes: VecDeque<Vec<usize>> = VecDeque::with_capacity(total);
    let mut named: HashMap<String, usize> = HashMap::new();
    for index in 0..total {
        let request = &batch.requests[index % batch.requests.len()];
        let Connection::Named(name) = &request.connection else {
            lanes.push_back(vec![index]);
            continue;
        };
        let name = if batch.repeat.is_some() { name.replace("{i}", &index.to_string()) } else { name.clone() };
        match named.get(&name) {
            Some(&lane) => lanes[lane].push(index),
            None => {
                named.insert(name, lanes.len());
                lanes.push_back(vec![index]);
            }
        }
    }
    lanes
}
