// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP/2 at both ends, in two processes.
//   node http2_peers.js server CERTIFICATE KEY         prints its port
//   node http2_peers.js client CERTIFICATE PORT COUNT  asks COUNT at once when told by a line
'use strict';
const fs = require('fs');
const http2 = require('http2');
const [role, certificate, ...rest] = process.argv.slice(2);

function serve(key) {
  const server = http2.createSecureServer({
    cert: fs.readFileSync(certificate), key: fs.readFileSync(key),
  });
  server.on('stream', (stream, headers) => {
    let said = 0;
    stream.on('data', (piece) => { said += piece.length; });
    stream.on('end', () => {
      // Later streams answer sooner, so that they finish out of order.
      const number = Number(headers['x-number'] || 0);
      setTimeout(() => {
        stream.respond({':status': 200, 'x-heard': String(said)}, {waitForTrailers: true});
        stream.on('wantTrailers', () => stream.sendTrailers({'x-sum': String(said + number)}));
        stream.end(`answer ${number} `.repeat(200));
      }, 20 - number % 20);
    });
  });
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
}

function ask(port, count) {
  const session = http2.connect(`https://localhost:${port}`, {ca: fs.readFileSync(certificate)});
  console.log('ready');
  process.stdin.once('data', () => {
    let open = count;
    for (let number = 0; number < count; number++) {
      const stream = session.request({
        ':method': 'POST', ':path': `/number/${number}`, 'x-number': String(number),
      });
      stream.resume();
      stream.on('end', () => {
        if (--open === 0) {
          console.log('done');
          session.close();
          process.stdin.destroy();
        }
      });
      stream.end(`question ${number} `.repeat(100));
    }
  });
}

if (role === 'server') serve(rest[0]);
else ask(Number(rest[0]), Number(rest[1]));
