//! The services over real sockets, against the facts of the wire.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::proto::*;
use super::{bot, emoji, voting, web};
use crate::probe::{self, ErrorKind, Record, Request, Sockets};

/// All three services, running.
struct World {
    web: String,
    emoji: String,
    voting: String,
    prom: String,
    shutdown: CancellationToken,
    tasks: Vec<AbortOnDropHandle<std::io::Result<()>>>,
}

fn voting_config() -> voting::Config {
    voting::Config {
        grpc_port: 0,
        prom_port: Some(0),
        failure_rate: None,
        fail_every: None,
        artificial_delay: None,
        seed: Some(1),
    }
}

async fn start(config: voting::Config) -> World {
    let emoji = emoji::Emoji::bind(emoji::Config { grpc_port: 0, prom_port: None }).await.unwrap();
    let voting = voting::Voting::bind(config).await.unwrap();
    let local = |port: u16| format!("127.0.0.1:{port}");
    let emoji_address = local(emoji.port().unwrap());
    let voting_address = local(voting.port().unwrap());
    let prom = local(voting.prom_port().unwrap().unwrap());
    let web = web::Web::bind(web::Config {
        web_port: 0,
        emojisvc_host: emoji_address.clone(),
        votingsvc_host: voting_address.clone(),
        index_bundle: "there/is/no/such/file.js".into(),
        message_of_the_day: "Welcome to version 2!".to_owned(),
    })
    .await
    .unwrap();
    let web_address = local(web.port().unwrap());
    let shutdown = CancellationToken::new();
    let tasks = vec![
        AbortOnDropHandle::new(tokio::spawn(emoji.serve(shutdown.clone()))),
        AbortOnDropHandle::new(tokio::spawn(voting.serve(shutdown.clone()))),
        AbortOnDropHandle::new(tokio::spawn(web.serve(shutdown.clone()))),
    ];
    World { web: web_address, emoji: emoji_address, voting: voting_address, prom, shutdown, tasks }
}

async fn get(target: &str, path: &str) -> Record {
    probe::send(&Request::get(target, path), None).await
}

async fn call<R: prost::Message + Default>(
    target: &str,
    path: &str,
    message: impl prost::Message,
) -> probe::grpc::Reply<R> {
    probe::grpc::call(&Request::get(target, path), &[message], false, &Sockets).await.unwrap()
}

#[tokio::test]
async fn lists_99_emoji() {
    let world = start(voting_config()).await;
    let record = get(&world.web, "/api/list").await;
    assert!(record.is(200), "{}", record.outcome());
    assert_eq!(record.header("content-type").collect::<Vec<_>>(), ["application/json; charset=UTF-8"]);
    assert!(record.body.starts_with("[{\"shortcode\":\":joy:\",\"unicode\":\"😂\"},"), "{}", &record.body[..60]);
    let list: Vec<Value> = serde_json::from_str(&record.body).unwrap();
    assert_eq!(list.len(), 99);
    assert_eq!(list[98]["shortcode"], ":poop:");

    let reply: probe::grpc::Reply<ListAllEmojiResponse> =
        call(&world.emoji, "/emojivoto.v1.EmojiService/ListAll", ListAllEmojiRequest {}).await;
    assert_eq!((reply.http_status, reply.code), (200, Some(0)));
    assert_eq!(reply.messages[0].list.len(), 99);
}

#[tokio::test]
async fn votes_are_counted_and_shown_as_strings() {
    let world = start(voting_config()).await;
    for (shortcode, times) in [(":pig:", 1), (":joy:", 3), (":point_up_2:", 2)] {
        for _ in 0..times {
            let record = get(&world.web, &format!("/api/vote?choice={shortcode}")).await;
            assert!(record.is(200) && record.body.is_empty(), "{shortcode}: {} {}", record.outcome(), record.body);
        }
    }
    let record = get(&world.web, "/api/leaderboard").await;
    let wanted = r#"[{"shortcode":":joy:","unicode":"😂","votes":"3"},{"shortcode":":point_up_2:","unicode":"👆","votes":"2"},{"shortcode":":pig:","unicode":"🐷","votes":"1"}]"#;
    assert_eq!(record.body.trim_end(), wanted);
    let metrics = get(&world.prom, "/metrics").await.body;
    for line in [
        "emojivoto_votes_total{emoji=\":joy:\"} 3",
        "grpc_server_started_total{grpc_method=\"VoteJoy\",grpc_service=\"emojivoto.v1.VotingService\",grpc_type=\"unary\"} 3",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"VoteJoy\",grpc_service=\"emojivoto.v1.VotingService\",grpc_type=\"unary\"} 3",
        "grpc_server_handling_seconds_bucket{grpc_method=\"VotePig\",grpc_service=\"emojivoto.v1.VotingService\",grpc_type=\"unary\",le=\"+Inf\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\nis not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_posted_form_votes_too() {
    let world = start(voting_config()).await;
    let post = Request::get(&world.web, "/api/vote").body("POST", "choice=%3Ajoy%3A");
    let post = post.header("Content-Type", "application/x-www-form-urlencoded");
    assert!(probe::send(&post, None).await.is(200));
    assert!(get(&world.web, "/api/leaderboard").await.body.contains("\"votes\":\"1\""));
}

#[tokio::test]
async fn the_doughnut_always_fails_by_default() {
    let world = start(voting_config()).await;
    for _ in 0..5 {
        let record = get(&world.web, "/api/vote?choice=:doughnut:").await;
        assert!(record.is(500), "{}", record.outcome());
        assert_eq!(record.body.trim_end(), r#"{"error":"rpc error: code = Unknown desc = ERROR"}"#);
    }
    let reply: probe::grpc::Reply<VoteResponse> =
        call(&world.voting, "/emojivoto.v1.VotingService/VoteDoughnut", VoteRequest {}).await;
    assert_eq!((reply.http_status, reply.code, reply.message.as_deref()), (200, Some(2), Some("ERROR")));
    assert_eq!(get(&world.web, "/api/leaderboard").await.body.trim_end(), "[]");
}

#[tokio::test]
async fn a_failure_rate_of_0_mends_the_doughnut() {
    let world = start(voting::Config { failure_rate: Some(0.0), ..voting_config() }).await;
    assert!(get(&world.web, "/api/vote?choice=:doughnut:").await.is(200));
}

#[tokio::test]
async fn every_third_vote_fails_when_asked() {
    let config = voting::Config { fail_every: Some("3".parse().unwrap()), ..voting_config() };
    let world = start(config).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(get(&world.web, "/api/vote?choice=:doughnut:").await.status.unwrap());
    }
    assert_eq!(statuses, [200, 200, 500, 200, 200, 500]);
}

#[tokio::test]
async fn all_100_methods_answer_and_no_other() {
    let world = start(voting::Config { failure_rate: Some(0.0), ..voting_config() }).await;
    for name in super::table::names() {
        let path = format!("/emojivoto.v1.VotingService/{}", super::table::method(name));
        let reply: probe::grpc::Reply<VoteResponse> = call(&world.voting, &path, VoteRequest {}).await;
        assert_eq!((reply.code, reply.messages.len()), (Some(0), 1), "{path}");
    }
    let reply: probe::grpc::Reply<ResultsResponse> =
        call(&world.voting, "/emojivoto.v1.VotingService/Results", ResultsRequest {}).await;
    assert_eq!(reply.messages[0].results.len(), 100);
    let reply: probe::grpc::Reply<VoteResponse> =
        call(&world.voting, "/emojivoto.v1.VotingService/VoteNobody", VoteRequest {}).await;
    assert_eq!(reply.code, Some(12), "UNIMPLEMENTED");
}

#[tokio::test]
async fn wrong_choices_are_the_clients_fault() {
    let world = start(voting_config()).await;
    for path in ["/api/vote", "/api/vote?choice=", "/api/vote?choice=:relaxed:", "/api/vote?choice=:nobody:"] {
        let record = get(&world.web, path).await;
        assert!(record.is(400), "{path}: {}", record.outcome());
        assert!(record.body.starts_with("{\"error\":"), "{path}: {}", record.body);
    }
}

#[tokio::test]
async fn any_other_path_is_the_index() {
    let world = start(voting_config()).await;
    for path in ["/", "/leaderboard", "/no/such/page"] {
        let record = get(&world.web, path).await;
        assert!(record.is(200), "{path}: {}", record.outcome());
        assert!(record.body.contains("<div id=\"motd\" class=\"motd\">Welcome to version 2!</div>"), "{}", record.body);
    }
    assert!(get(&world.web, "/js").await.body.contains("/api/vote"));
    assert!(get(&world.web, "/img/favicon.ico").await.is(404));
}

#[tokio::test]
async fn the_delay_holds_every_vote() {
    let config = voting::Config { artificial_delay: Some(Duration::from_millis(80)), ..voting_config() };
    let world = start(config).await;
    let slow = get(&world.web, "/api/vote?choice=:joy:").await;
    assert!(slow.is(200) && slow.total_us >= 80_000, "{} after {} us", slow.outcome(), slow.total_us);
    let mut hasty = Request::get(&world.web, "/api/vote?choice=:joy:");
    hasty.timeout_ms = 20;
    let error = probe::send(&hasty, None).await.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn a_service_that_is_gone_gives_500() {
    let gone = crate::probe::tests::closed_port().await;
    let config = web::Config {
        web_port: 0,
        emojisvc_host: gone.clone(),
        votingsvc_host: gone,
        index_bundle: "none".into(),
        message_of_the_day: String::new(),
    };
    let web = web::Web::bind(config).await.unwrap();
    let target = format!("127.0.0.1:{}", web.port().unwrap());
    let _task = AbortOnDropHandle::new(tokio::spawn(web.serve(CancellationToken::new())));
    let record = get(&target, "/api/list").await;
    assert!(record.is(500), "{}", record.outcome());
    assert!(record.body.contains("code = Unavailable"), "{}", record.body);
}

#[tokio::test]
async fn the_bot_votes_until_its_time_is_over() {
    let world = start(voting::Config { failure_rate: Some(0.0), ..voting_config() }).await;
    let config = bot::Config {
        web_host: world.web.clone(),
        host_override: Some("web-svc.emojivoto".to_owned()),
        request_rate: 100,
        ttl: 0,
        seed: Some(3),
    };
    let shutdown = CancellationToken::new();
    let bot = tokio::spawn(bot::run(config, shutdown.clone()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let board: Vec<Value> = serde_json::from_str(&get(&world.web, "/api/leaderboard").await.body).unwrap();
        let votes: u64 = board.iter().map(|line| line["votes"].as_str().unwrap().parse::<u64>().unwrap()).sum();
        if votes >= 10 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {votes} votes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    bot.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_in_flight_is_answered_before_the_end() {
    let config = voting::Config { artificial_delay: Some(Duration::from_millis(150)), ..voting_config() };
    let mut world = start(config).await;
    let web = world.web.clone();
    let vote = tokio::spawn(async move { get(&web, "/api/vote?choice=:joy:").await });
    // The vote is under way once the voting service has counted it as started.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !get(&world.prom, "/metrics").await.body.contains("grpc_server_started_total{grpc_method=\"VoteJoy\"") {
        assert!(tokio::time::Instant::now() < deadline, "the vote never started");
    }
    world.shutdown.cancel();
    assert!(vote.await.unwrap().is(200));
    for task in world.tasks.drain(..) {
        task.await.unwrap().unwrap();
    }
    assert_eq!(get(&world.web, "/").await.error.unwrap().kind, ErrorKind::Refused);
}
