// SPDX-License-Identifier: Apache-2.0
// HTTPS by Node.js or Bun, each with its own API.
//   https_peers.js server CERTIFICATE KEY   prints its port; answers with what it was sent
//   https_peers.js client CERTIFICATE PORT  says "ready" and is told what to do line by line:
//     "send TEXT COUNT" posts the text COUNT times and answers "same"
'use strict';
const fs = require('fs');
const [role, certificate, last] = process.argv.slice(2);
const bun = typeof Bun !== 'undefined';

function serve(key) {
  const [cert, secret] = [certificate, key].map((name) => fs.readFileSync(name));
  if (bun) {
    const server = Bun.serve({
      port: 0, hostname: '127.0.0.1', tls: {cert, key: secret},
      async fetch(request) { return new Response(await request.arrayBuffer()); },
    });
    console.log(server.port);
    return;
  }
  require('https').createServer({cert, key: secret}, (request, response) => {
    const said = [];
    request.on('data', (piece) => said.push(piece));
    request.on('end', () => response.end(Buffer.concat(said)));
  }).listen(0, '127.0.0.1', function () { console.log(this.address().port); });
}

async function post(port, said) {
  const ca = fs.readFileSync(certificate);
  if (bun) {
    const answer = await fetch(`https://localhost:${port}/`,
      {method: 'POST', body: said, keepalive: false, tls: {ca}});
    return answer.text();
  }
  return new Promise((resolve, reject) => {
    const options = {host: '127.0.0.1', servername: 'localhost', port, ca, method: 'POST', agent: false};
    const request = require('https').request(options, (answer) => {
      let heard = '';
      answer.on('data', (piece) => { heard += piece; });
      answer.on('end', () => resolve(heard));
    });
    request.on('error', reject);
    request.end(said);
  });
}

async function ask(port) {
  const lines = require('readline').createInterface({input: process.stdin});
  console.log('ready');
  for await (const line of lines) {
    const [, text, count] = line.split(' ');
    const said = text.repeat(Number(count));
    console.log(await post(port, said) === said ? 'same' : 'different');
  }
}

if (role === 'server') serve(last); else ask(Number(last));
