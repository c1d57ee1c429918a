//! How connections of HTTP/2 to an endpoint are made.
//!
//! Windows are those that the proxy is told to have, and proxies are asked whether they are there as this proxy is told to. What the control plane says of an
//! endpoint takes the place of either, one by one, as in Linkerd (`linkerd/http/h2`, `linkerd/proxy/api-resolve/src/pb.rs`).

use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use linkerd2_proxy_api::destination::{Http2ClientParams, http2_client_params as api};

use super::MAX_HEAD;
use crate::{KeepAlive, Windows};

/// The largest window, and the sizes that frames may have (RFC 9113, sections 6.5.2 and 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;

/// What the control plane says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Http2Params {
    windows: Option<FlowControl>,
    /// How a peer that has gone is noticed, and whether it is asked while nobody waits for it.
    keep_alive: Option<(KeepAlive, bool)>,
    max_concurrent_reset_streams: Option<usize>,
    max_frame_size: Option<u32>,
    max_send_buf_size: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlowControl {
    /// Windows as large as the line takes.
    Adaptive,
    Fixed(Windows),
}

impl Http2Params {
    /// From its answer. As in Linkerd, zeros and halves say nothing; nor does what HTTP/2 does not know.
    pub(crate) fn of(params: &Http2ClientParams) -> Self {
        let internals = params.internals.unwrap_or_default();
        let positive = |number: u32| usize::try_from(number).ok().filter(|number| *number > 0);
        Self {
            windows: params.flow_control.and_then(FlowControl::of),
            keep_alive: params.keep_alive.and_then(keep_alive),
            max_concurrent_reset_streams: positive(internals.max_concurrent_reset_streams),
            max_frame_size: Some(internals.max_frame_size).filter(|size| FRAME_SIZES.contains(size)),
            max_send_buf_size: positive(internals.max_send_buf_size),
        }
    }

    /// Has connections made so. `windows` and `keep_alive` are for where the control plane says nothing of them.
    pub(super) fn apply(
        &self,
        client: &mut http2::Builder<TokioExecutor>,
        windows: Windows,
        keep_alive: Option<KeepAlive>,
    ) {
        client.max_header_list_size(MAX_HEAD as u32);
        match self.windows.unwrap_or(FlowControl::Fixed(windows)) {
            FlowControl::Adaptive => client.adaptive_window(true),
            FlowControl::Fixed(Windows { stream, connection }) => {
                client.initial_stream_window_size(stream).initial_connection_window_size(connection)
            }
        };
        // While idle, too: else the next request finds out, and pays.
        if let Some((KeepAlive { interval, timeout }, while_idle)) =
            self.keep_alive.or_else(|| Some((keep_alive?, true)))
        {
            client.keep_alive_interval(interval).keep_alive_timeout(timeout).keep_alive_while_idle(while_idle);
        }
        if let Some(streams) = self.max_concurrent_reset_streams {
            client.max_concurrent_reset_streams(streams);
        }
        if let Some(size) = self.max_frame_size {
            client.max_frame_size(size);
        }
        if let Some(size) = self.max_send_buf_size {
            client.max_send_buf_size(size);
        }
    }
}

impl FlowControl {
    fn of(said: api::FlowControl) -> Option<Self> {
        if said.adaptive_flow_control {
            return Some(Self::Adaptive);
        }
        let window = |size: u32| Some(size).filter(|size| (1..=MAX_WINDOW).contains(size));
        Some(Self::Fixed(Windows {
            stream: window(said.initial_stream_window_size)?,
            connection: window(said.initial_connection_window_size)?,
        }))
    }
}

fn keep_alive(said: api::KeepAlive) -> Option<(KeepAlive, bool)> {
    Some((KeepAlive { interval: duration(said.interval)?, timeout: duration(said.timeout)? }, said.while_idle))
}

fn duration<T>(said: Option<T>) -> Option<Duration>
where
    Duration: TryFrom<T>,
{
    Duration::try_from(said?).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper_util::rt::{TokioIo, TokioTimer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const WINDOWS: Windows = Windows { stream: 65_535, connection: 1024 * 1024 };
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn flow(stream: u32, connection: u32, adaptive: bool) -> Http2ClientParams {
        let flow = api::FlowControl {
            initial_stream_window_size: stream,
            initial_connection_window_size: connection,
            adaptive_flow_control: adaptive,
        };
        Http2ClientParams { flow_control: Some(flow), ..Default::default() }
    }

    fn alive(interval: u32, timeout: u32) -> Http2ClientParams {
        let duration = |millis: u32| prost_types::Duration::try_from(Duration::from_millis(millis.into())).ok();
        let said = api::KeepAlive { interval: duration(interval), timeout: duration(timeout), while_idle: true };
        Http2ClientParams { keep_alive: Some(said), ..Default::default() }
    }

    fn internals(reset: u32, frame: u32, buffer: u32) -> Http2ClientParams {
        let internals =
            api::Internals { max_concurrent_reset_streams: reset, max_frame_size: frame, max_send_buf_size: buffer };
        Http2ClientParams { internals: Some(internals), ..Default::default() }
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let nothing = Http2Params::default();
        for said in [
            Http2ClientParams::default(),
            flow(10, 0, false),
            flow(0, 10, false),
            flow(u32::MAX, 10, false),
            alive(0, 1),
            alive(1, 0),
            internals(0, 0, 0),
            internals(0, 16_383, 0),
            internals(0, u32::MAX, 0),
        ] {
            assert_eq!(Http2Params::of(&said), nothing, "{said:?}");
        }
        let windows = Some(FlowControl::Fixed(Windows { stream: 10, connection: 100 }));
        assert_eq!(Http2Params::of(&flow(10, 100, false)), Http2Params { windows, ..nothing });
        assert_eq!(Http2Params::of(&flow(0, 0, true)), Http2Params { windows: Some(FlowControl::Adaptive), ..nothing });
        let keep_alive = KeepAlive { interval: Duration::from_millis(10), timeout: Duration::from_millis(20) };
        assert_eq!(Http2Params::of(&alive(10, 20)), Http2Params { keep_alive: Some((keep_alive, true)), ..nothing });
        assert_eq!(
            Http2Params::of(&internals(1, 20_000, 3)),
            Http2Params {
                max_concurrent_reset_streams: Some(1),
                max_frame_size: Some(20_000),
                max_send_buf_size: Some(3),
                ..nothing
            }
        );
    }

    /// The server's end of a connection that is made so, and on which nothing is sent.
    async fn connection(params: &Http2Params) -> DuplexStream {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.timer(TokioTimer::new());
        params.apply(&mut client, WINDOWS, None);
        tokio::spawn(async move {
            let (sender, connection) = client.handshake::<_, Empty<Bytes>>(TokioIo::new(near)).await.unwrap();
            let _ = connection.await;
            drop(sender);
        });
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        far
    }

    /// The next frame of a kind: what it says.
    async fn next(far: &mut DuplexStream, kind: u8) -> Vec<u8> {
        loop {
            let mut head = [0; 9];
            far.read_exact(&mut head).await.unwrap();
            let mut said = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            far.read_exact(&mut said).await.unwrap();
            if head[3] == kind {
                return said;
            }
        }
    }

    #[tokio::test]
    async fn a_server_is_told_and_asked_as_the_control_plane_says() {
        let said = Http2ClientParams {
            flow_control: flow(70_000, 200_000, false).flow_control,
            keep_alive: alive(10, 10_000).keep_alive,
            internals: internals(0, 20_000, 0).internals,
        };
        let mut far = connection(&Http2Params::of(&said)).await;
        let settings = next(&mut far, SETTINGS).await;
        let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        for expected in [setting(4, 70_000), setting(5, 20_000)] {
            assert!(settings.chunks(6).any(|setting| setting == expected), "{expected:?} in {settings:?}");
        }
        // A connection's window is 65,535 bytes before it is made larger.
        assert_eq!(next(&mut far, WINDOW_UPDATE).await, (200_000_u32 - 65_535).to_be_bytes());
        // There is no request that it could be asked about.
        far.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
        next(&mut far, PING).await;
    }
}
