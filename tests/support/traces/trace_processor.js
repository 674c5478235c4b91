// Perfetto's trace processor, as its web page runs it in a worker, between two files of its RPC messages:
//   node trace_processor.js FOLDER_OF_THE_PAGE REQUESTS REPLIES
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [folder, requests, replies] = process.argv.slice(2);
class FileRequest {
  open(method, name) {
    this.file = path.join(folder, path.basename(name));
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(this.file)).buffer;
  }
}
const page = { location: { href: "file:///" } };
const names = { console, TextDecoder, TextEncoder, performance, setTimeout, URL, crypto };
const worker = vm.createContext({ ...names, self: page, XMLHttpRequest: FileRequest, WorkerGlobalScope: Object });
vm.runInContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"), worker, { filename: "engine_bundle" });
const received = [];
const port = { postMessage: (message) => received.push(Buffer.from(message)) };
page.onmessage({ data: port });
setTimeout(() => {
  const Bytes = vm.runInContext("Uint8Array", worker); // a class of the worker's own, as it checks
  port.onmessage({ data: new Bytes(fs.readFileSync(requests)) });
  fs.writeFileSync(replies, Buffer.concat(received));
}, 0);
