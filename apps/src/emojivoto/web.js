// Lists the emoji, votes on a click, shows the leaderboard.
const main = document.getElementById("main");
const board = location.pathname === "/leaderboard";
const items = await_json(board ? "/api/leaderboard" : "/api/list");

async function await_json(path) {
  const response = await fetch(path);
  return response.json();
}

async function vote(shortcode) {
  const response = await fetch("/api/vote?choice=" + shortcode, { method: "POST" });
  main.title = response.ok ? "" : (await response.json()).error;
  document.title = response.ok ? "Voted for " + shortcode : "Could not vote for " + shortcode;
}

items.then((list) => {
  for (const { shortcode, unicode, votes } of list) {
    const button = document.createElement("button");
    button.textContent = votes === undefined ? unicode : unicode + " " + votes;
    button.title = shortcode;
    button.onclick = () => vote(shortcode);
    main.append(button);
  }
  const link = document.createElement("a");
  link.href = board ? "/" : "/leaderboard";
  link.textContent = board ? "Vote" : "Leaderboard";
  main.append(document.createElement("br"), link);
});
