// A server on Node.js: node server.js PORT FOLDER FEATURE
"use strict";
const { createHash } = require("node:crypto");
const { constants } = require("node:crypto");
const fs = require("node:fs");
const tls = require("node:tls");

const [port, folder, feature] = process.argv.slice(2);
const options = {
  cert: fs.readFileSync(`${folder}/server.crt`),
  key: fs.readFileSync(`${folder}/server.key`),
  minVersion: "TLSv1.2",
};
if (feature === "HelloRetryRequest") options.ecdhCurve = "P-384";
if (feature === "0 tickets") options.secureOptions = constants.SSL_OP_NO_TICKET;
if (feature.includes("client certificate")) {
  Object.assign(options, { ca: fs.readFileSync(`${folder}/ca.pem`), requestCert: true, rejectUnauthorized: true });
}

const server = tls.createServer(options, (socket) => {
  socket.setNoDelay(true);
  if (feature === "small records") socket.setMaxSendFragment(512);
  let data = Buffer.alloc(0);
  let pieces = null;
  let have = 0;
  let method, name, length;
  const answer = () => {
    const body = Buffer.concat(pieces);
    const said =
      method === "GET"
        ? fs.readFileSync(`${folder}/www/${name}`)
        : Buffer.from(`${body.length} ${createHash("sha256").update(body).digest("hex")}`);
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${said.length}\r\nConnection: close\r\n\r\n`;
    const whole = Buffer.concat([Buffer.from(head), said]);
    if (feature === "no close_notify") socket.write(whole, () => socket.destroy());
    else socket.end(whole);
  };
  socket.on("data", (piece) => {
    if (pieces) {
      pieces.push(piece);
      have += piece.length;
    } else {
      data = Buffer.concat([data, piece]);
      const at = data.indexOf("\r\n\r\n");
      if (at < 0) return;
      const head = data.subarray(0, at).toString();
      let target;
      [method, target] = head.split("\r\n")[0].split(" ");
      name = target.slice(target.lastIndexOf("/") + 1);
      length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
      pieces = [data.subarray(at + 4)];
      have = pieces[0].length;
    }
    if (have >= length) answer();
  });
  socket.on("error", () => {});
});
server.on("tlsClientError", () => {});
server.listen(Number(port), "127.0.0.1");
