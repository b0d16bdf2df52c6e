// The same requests, verified by the Node library of Standard Webhooks.
"use strict";

const { readFileSync } = require("node:fs");
const { Webhook } = require("standardwebhooks");

const kept = JSON.parse(readFileSync(process.argv[2], "utf8"));

function verifies(secret, request, body = request.body) {
  try {
    new Webhook(secret).verify(body, request.headers);
    return true;
  } catch {
    return false;
  }
}

function check(name, holds) {
  console.log(holds ? `ok ${name}` : `FAILED ${name}`);
}

const all = [...kept.rotating, ...kept.alone];
check("node: there is something to verify", kept.rotating.length > 0 && kept.alone.length > 0);
check("node: the new secret verifies", kept.rotating.every((request) => verifies(kept.new, request)));
check("node: the old secret verifies", all.every((request) => verifies(kept.old, request)));
check("node: one secret, one signature", !kept.alone.some((request) => verifies(kept.new, request)));
check("node: another secret does not", !all.some((request) => verifies(kept.other, request)));
const changed = (request) => request.body.replace("high", "info");
check("node: a changed body does not", !all.some((request) => verifies(kept.old, request, changed(request))));
