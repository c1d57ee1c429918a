//! Protocols beyond plain HTTP/1.1: gRPC, WebSocket, HTTP/2.

use meshgate_apps::echo::grpc::{EchoReply, EchoRequest, SERVICE};
use meshgate_clusters::{Feature, Vantage};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan};
use meshgate_harness::probe::{Batch, Connection, Request, Summary, Version, grpc, websocket};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

/// Codes of gRPC.
const OK: Option<i32> = Some(0);
const ALREADY_EXISTS: Option<i32> = Some(6);

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/grpc-unary",
        summary: "A unary gRPC call reaches its Service and ends with the trailers of success",
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: speaks_grpc,
        run: |context| Box::pin(grpc_unary(context)),
    },
    Case {
        id: "routing/grpc-streaming",
        summary: "gRPC streams flow in both directions at once, and an error's code and trailers come through",
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: speaks_grpc,
        run: |context| Box::pin(grpc_streaming(context)),
    },
    Case {
        id: "routing/websocket",
        summary: "A WebSocket is upgraded, carries messages both ways and closes in order",
        needs: &[Need::Serves, Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A);
        },
        run: |context| Box::pin(web_socket(context)),
    },
    Case {
        id: "routing/http2-to-ingress",
        summary: "A client that speaks HTTP/2 with prior knowledge is served, many requests on one connection",
        // A controller that takes gRPC from clients without TLS takes HTTP/2 with prior knowledge.
        needs: &[Need::Serves, Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.serve("a", Backend::A);
        },
        run: |context| Box::pin(http2_to_ingress(context)),
    },
];

fn speaks_grpc(plan: &mut Plan) {
    plan.service("a", Backend::A).grpc();
    plan.route("a", "a").template("grpc");
}

/// Which backend answers a call of the method at the request's path.
pub(crate) async fn answering(context: &Context, request: &Request) -> Result<String, Failure> {
    let reply = called(context, request, &[EchoRequest { count: 1, ..message("who") }], false).await?;
    let method = &request.path;
    check(format!("grpc-status of {method}")).equal(reply.code, OK)?;
    let services: Vec<String> = reply.messages.into_iter().map(|message| message.service).collect();
    let [service, ..] = services.as_slice() else {
        return Err(check(format!("messages of {method}")).failure("at least one", "none"));
    };
    Ok(service.clone())
}

async fn call(
    context: &Context,
    route: &str,
    method: &str,
    messages: &[EchoRequest],
    lockstep: bool,
) -> Result<grpc::Reply<EchoReply>, Failure> {
    let request = Request { path: format!("/{SERVICE}/{method}"), ..context.get(route)? }.header("x-test", "kept");
    called(context, &request, messages, lockstep).await
}

async fn called(
    context: &Context,
    request: &Request,
    messages: &[EchoRequest],
    lockstep: bool,
) -> Result<grpc::Reply<EchoReply>, Failure> {
    let method = &request.path;
    let outside = context.world.prober.from(Vantage::Outside(0));
    let reply = grpc::call(request, messages, lockstep, &outside).await;
    let reply =
        reply.map_err(|error| check(format!("the call of {method}")).failure("an answer", error.to_string()))?;
    check(format!("the HTTP status of {method}")).equal(reply.http_status, 200)?;
    Ok(reply)
}

fn message(text: &str) -> EchoRequest {
    EchoRequest { message: text.to_owned(), ..EchoRequest::default() }
}

async fn grpc_unary(context: Context) -> CaseResult {
    let reply = call(&context, "a", "Unary", &[message("hello")], false).await?;
    check("grpc-status").equal(reply.code, OK)?;
    check("trailers with grpc-status")
        .equal(reply.trailers.iter().filter(|(name, _)| name == "grpc-status").count(), 1)?;
    let [answer] = reply.messages.as_slice() else {
        return Err(check("messages").failure("one", reply.messages.len().to_string()));
    };
    check("message and service").equal((answer.message.as_str(), answer.service.as_str()), ("hello", "echo-a"))?;
    if context.promises().keeps_host {
        check("the authority that arrives").equal(answer.authority.as_str(), context.route("a")?.host.as_str())?;
    }
    let kept = answer.headers.iter().any(|header| header.name == "x-test" && header.value == "kept");
    check("the header x-test at the backend").that(kept, "kept", format!("{:?}", answer.headers))?;
    Ok(Outcome::Pass)
}

async fn grpc_streaming(context: Context) -> CaseResult {
    let wanted = EchoRequest { count: 50, ..message("stream") };
    let reply = call(&context, "a", "ServerStream", &[wanted], false).await?;
    let numbers: Vec<u32> = reply.messages.iter().map(|message| message.sequence).collect();
    check("the replies of the server's stream").equal(numbers, (0..50).collect::<Vec<_>>())?;
    check("grpc-status of the server's stream").equal(reply.code, OK)?;

    // In lockstep every message waits for the reply to the one before: both directions have to flow at once.
    let spoken: Vec<String> = (0..10).map(|index| format!("message {index}")).collect();
    let messages: Vec<EchoRequest> = spoken.iter().map(|text| message(text)).collect();
    let reply = call(&context, "a", "BidiStream", &messages, true).await?;
    let heard: Vec<&str> = reply.messages.iter().map(|message| message.message.as_str()).collect();
    check("the replies of the two-way stream").equal(heard, spoken)?;
    check("grpc-status of the two-way stream").equal(reply.code, OK)?;

    let failing = EchoRequest { code: 6, ..message("there already") };
    let reply = call(&context, "a", "Fail", &[failing], false).await?;
    check("grpc-status of a call that fails").equal(reply.code, ALREADY_EXISTS)?;
    let message = reply.message.unwrap_or_default().replace("%20", " ");
    check("grpc-message of a call that fails").equal(message.as_str(), "there already")?;
    let trailers = reply.trailers.iter().chain(&reply.headers);
    let custom = trailers.filter(|(name, value)| name == "x-seen-x-test" && value == "kept").count();
    check("the backend's own trailer of a call that fails").equal(custom, 1)?;
    Ok(Outcome::Pass)
}

async fn web_socket(context: Context) -> CaseResult {
    let request = Request { path: "/socket?x=1".into(), ..context.get("a")? };
    let outside = context.world.prober.from(Vantage::Outside(0));
    let failed =
        |what: &str, error: &dyn std::fmt::Display| check(what.to_owned()).failure("to work", error.to_string());
    let mut socket =
        websocket::open(&request, &outside).await.map_err(|error| failed("the upgrade to WebSocket", &error))?;
    let long = "long ".repeat(20_000);
    for text in ["first", "second ☃", &long] {
        let back = socket.echo(text).await.map_err(|error| failed("a message over the WebSocket", &error))?;
        check("the message that comes back").that(back == text, format!("{} bytes", text.len()), back)?;
    }
    socket.close().await.map_err(|error| failed("closing the WebSocket", &error))?;
    Ok(Outcome::Pass)
}

async fn http2_to_ingress(context: Context) -> CaseResult {
    let request = context.get("a")?.version(Version::H2c);
    let record = context.send(request.clone()).await;
    check("the version of the answer")
        .equal((record.outcome().as_str(), record.version.as_str()), ("200", "HTTP/2.0"))?;
    let seen = context.expect_seen(request.clone()).await?;
    if context.promises().keeps_host {
        check("the Host that the backend sees").equal(seen.host.as_deref(), request.host.as_deref())?;
    }

    let request = request.on(Connection::Named("one".into()));
    let records = context.send_batch(Batch { repeat: Some(20), concurrency: 4, ..Batch::of(vec![request]) }).await;
    let summary = Summary::of(&records);
    check("answers 200 and connections").equal((summary.status(200), summary.connections), (20, 1))?;
    Ok(Outcome::Pass)
}
