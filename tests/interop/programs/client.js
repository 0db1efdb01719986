// A client on Node.js: node client.js PORT FOLDER OUTPUT SIZES VERSION SUITE FEATURE
"use strict";
const fs = require("node:fs");
const tls = require("node:tls");

const [port, folder, output, sizes, version, suite, feature] = process.argv.slice(2);
let session;

function fetch(size) {
  return new Promise((resolve, reject) => {
    const options = {
      host: "localhost",
      port: Number(port),
      servername: "localhost",
      ca: fs.readFileSync(`${folder}/ca.pem`),
      minVersion: `TLSv${version}`,
      maxVersion: `TLSv${version}`,
      ciphers: suite,
      session,
    };
    if (feature === "client certificate") {
      options.cert = fs.readFileSync(`${folder}/client.crt`);
      options.key = fs.readFileSync(`${folder}/client.key`);
    }
    const upload = feature === "upload";
    const socket = tls.connect(options, () => {
      socket.setNoDelay(true);
      const first = upload ? `POST /upload HTTP/1.1\r\nContent-Length: ${size}` : `GET /${size} HTTP/1.1`;
      socket.write(`${first}\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      if (upload && size > 0) socket.write(fs.readFileSync(`${folder}/www/${size}`));
    });
    if (feature === "resumption") socket.on("session", (given) => (session = given));
    const pieces = [];
    let have = 0;
    let wanted = Infinity;
    const done = () => {
      const whole = Buffer.concat(pieces);
      fs.writeFileSync(`${output}/${size}`, whole.subarray(whole.indexOf("\r\n\r\n") + 4));
    };
    socket.on("data", (piece) => {
      pieces.push(piece);
      have += piece.length;
      if (wanted === Infinity) {
        const whole = Buffer.concat(pieces);
        const at = whole.indexOf("\r\n\r\n");
        if (at < 0) return;
        wanted = at + 4 + Number(/content-length: (\d+)/i.exec(whole.toString("latin1", 0, at))[1]);
      }
      if (have >= wanted && feature === "no close_notify") socket.destroy();
    });
    socket.on("close", (failed) => {
      if (have < wanted) reject(new Error(`it ended after ${have} bytes`));
      else {
        done();
        resolve();
      }
    });
    socket.on("error", reject);
  });
}

(async () => {
  for (const size of sizes.split(",").map(Number)) await fetch(size);
})().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
