// Signs and verifies webhooks with the reference library: one JSON request a line in, one JSON answer a line out.
"use strict";

const readline = require("node:readline");
const { Webhook } = require("standardwebhooks");

function answer(request) {
  try {
    const webhook = new Webhook(request.secret);
    if (request.sign) {
      return { signature: webhook.sign(request.id, new Date(request.at_s * 1000), request.body) };
    }
    return { event: webhook.verify(request.body, request.headers) };
  } catch (error) {
    return { refused: error.message };
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + "\n");
});
