//! The DevTools protocol over a browser's pipes: JSON messages, each ended by a NUL.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a command may take. It is long because a busy machine is slow.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to the browser. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Mutex<ChildStdin>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// What happened in each session, in order.
    events: HashMap<String, Vec<Value>>,
    closed: bool,
}

impl Connection {
    /// Over the pipe that the browser reads and the one that it writes.
    pub(super) fn new(commands: ChildStdin, messages: ChildStdout) -> Self {
        let shared = Arc::new(Shared {
            commands: Mutex::new(commands),
            state: Mutex::default(),
        });
        let reader = Arc::clone(&shared);
        // A thread of its own: it ends when the browser's end of the pipe is closed.
        std::thread::spawn(move || {
            let messages = BufReader::new(messages).split(0).map_while(Result::ok);
            for message in messages {
                if let Ok(message) = serde_json::from_slice(&message) {
                    reader.state.lock().take(message);
                }
            }
            let mut state = reader.state.lock();
            state.closed = true;
            state.waiting.clear();
        });
        Self { shared }
    }

    /// Sends a command, to a page where there is a `session`, and gives its result.
    pub(super) async fn command(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value> {
        let (answered, answer) = oneshot::channel();
        let id = {
            let mut state = self.shared.state.lock();
            if state.closed {
                bail!("{method}: the browser has ended");
            }
            state.last_id += 1;
            let id = state.last_id;
            state.waiting.insert(id, answered);
            id
        };
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.shared
            .commands
            .lock()
            .write_all(&bytes)
            .with_context(|| format!("{method}: the browser has ended"))?;
        let answer = timeout(COMMAND_TIMEOUT, answer)
            .await
            .with_context(|| format!("{method}: no answer within {COMMAND_TIMEOUT:?}"))?
            .with_context(|| format!("{method}: the browser has ended"))?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    /// What has happened in a session so far.
    pub(super) fn events(&self, session: &str) -> Vec<Value> {
        let state = self.shared.state.lock();
        state.events.get(session).cloned().unwrap_or_default()
    }
}

impl State {
    fn take(&mut self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = self.waiting.remove(&id) {
                let _ = waiting.send(message);
            }
        } else if let Some(session) = message["sessionId"].as_str() {
            let session = session.to_owned();
            self.events.entry(session).or_default().push(message);
        }
    }
}
