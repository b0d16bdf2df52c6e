// Teams' cards, as Microsoft's own library reads them for version 1.4: no event of validation, and all of it understood.
"use strict";

const { readFileSync } = require("node:fs");
const { isDeepStrictEqual } = require("node:util");
const { AdaptiveCard, SerializationContext, Versions } = require("adaptivecards/dist/adaptivecards.js");

const messages = JSON.parse(readFileSync(process.argv[2], "utf8"));
const TYPE = "application/vnd.microsoft.card.adaptive";

function check(name, holds, detail = "") {
  console.log(holds ? `ok ${name}` : `FAILED ${name} ${JSON.stringify(detail)}`);
}

// What the library has against a card. It skips members that it does not know, or that are younger than 1.4, without a
// word: what it writes is therefore compared with what it read, but for `msteams`, which is for Teams alone.
function faults(card) {
  const read = new AdaptiveCard();
  const context = new SerializationContext(Versions.v1_4);
  read.parse(structuredClone(card), context);
  const found = [];
  for (let index = 0; index < context.eventCount; index++) found.push(context.getEventAt(index).message);
  found.push(...read.validateProperties().validationEvents.map((event) => event.message));
  if (card.version > "1.4") found.push(`version ${card.version}`);
  const { msteams, ...rest } = card;
  if (!isDeepStrictEqual(read.toJSON(new SerializationContext(Versions.v1_4)), rest)) found.push("a part is not understood");
  return found;
}

const cards = messages.map((message) => message.attachments[0].content);
check("teams: there is something to read", cards.length >= 2);
check("teams: one card a message", messages.every((message) => message.type === "message" && message.attachments.length === 1
  && message.attachments[0].contentType === TYPE));
const found = cards.flatMap(faults);
check("teams: every card is understood whole", found.length === 0, found.slice(0, 3));
const kinds = new Set(cards.flatMap((card) => card.body.map((element) => element.type)));
check("teams: text runs only, which know no markup", isDeepStrictEqual([...kinds], ["RichTextBlock"]), [...kinds]);

const spoilt = (change) => {
  const card = structuredClone(cards[cards.length - 1]);
  change(card, card.body[0], card.body[0].inlines[0]);
  return card;
};
for (const [what, change] of Object.entries({
  "a version of 1.5": (card) => { card.version = "1.5"; },
  "no version": (card) => { delete card.version; },
  "an unknown element": (card) => { card.body.push({ type: "Nothing" }); },
  "a table, of 1.5": (card) => { card.body.push({ type: "Table", columns: [{ width: 1 }], rows: [] }); },
  "an unknown run": (card, block) => { block.inlines.push({ type: "Nothing", text: "x" }); },
  "an unknown value": (card, block, run) => { run.color = "Purple"; },
  "an unknown member": (card, block, run) => { run.bold = true; },
  "a text that is none": (card, block, run) => { run.text = 7; },
  "another type": (card) => { card.type = "Card"; },
})) check(`teams: ${what} would be seen`, faults(spoilt(change)).length > 0);
