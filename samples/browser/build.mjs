// Puts beside the page what it loads: the libraries, a model, and an example.
//
//     npm run build -- [MODEL DIRECTORY] [EXAMPLE FILE] [--file model.int8.onnx] [--to FOLDER]
//
// With --to, the page itself is copied to that folder as well, ready for a web server.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const HERE = dirname(fileURLToPath(import.meta.url))
const PAGE = ['index.html', 'style.css', 'from_disk.js', 'page.js', 'model.js', 'reading.js', 'csv.js', 'parquet.js', 'tidy.js',
  'table.js', 'plot.js', 'words.js']
const LIBRARIES = [ // in node_modules, in vendor
  ['onnxruntime-web/dist/ort.wasm.bundle.min.mjs', 'onnxruntime-web/ort.wasm.bundle.min.mjs'],
  ['onnxruntime-web/dist/ort-wasm-simd-threaded.wasm', 'onnxruntime-web/ort-wasm-simd-threaded.wasm'],
  ['hyparquet/src', 'hyparquet'],
  ['hyparquet/LICENSE', 'hyparquet/LICENSE'],
  ['hyparquet-compressors/src', 'hyparquet-compressors'],
  ['hyparquet-compressors/LICENSE', 'hyparquet-compressors/LICENSE'],
  ['fzstd/esm/index.mjs', 'fzstd/index.mjs'],
  ['fzstd/LICENSE', 'fzstd/LICENSE'],
]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { file: { type: 'string', default: 'model.float32.onnx' }, to: { type: 'string', default: HERE } },
})
const samples = join(HERE, '..')
const [modelDirectory = join(samples, 'model'), example = positionals[0] ? '' : join(samples, 'response_times.parquet')] = positionals
const to = resolve(values.to)

try {
  await build()
} catch (error) {
  console.error(error.message)
  process.exit(1)
}

async function build() {
  const manifest = JSON.parse(await readFile(join(modelDirectory, 'manifest.json')).catch(() => {
    throw new Error(`${modelDirectory}: no manifest.json, so no model directory. Train one: toolkit train`)
  }))
  const entry = manifest.files.find((each) => each.file === values.file)
  if (!entry || entry.format !== 'onnx') {
    throw new Error(`${modelDirectory}: no ONNX file ${values.file}. Export it: toolkit export --format onnx`)
  }
  const content = await readFile(join(modelDirectory, entry.file))
  if (createHash('sha256').update(content).digest('hex') !== entry.sha256) {
    throw new Error(`${entry.file}: sha256 differs from manifest.json. Export it again: toolkit export --format onnx`)
  }
  await mkdir(to, { recursive: true })
  for (const folder of ['vendor', 'model', 'example']) await rm(join(to, folder), { recursive: true, force: true })
  for (const [from, into] of LIBRARIES) await cp(installed(from), join(to, 'vendor', into), { recursive: true })
  await mkdir(join(to, 'model'))
  await writeFile(join(to, 'model', entry.file), content)
  // The page reads the one file that it has.
  await writeFile(join(to, 'model', 'manifest.json'), JSON.stringify({ ...manifest, files: [entry] }, null, 2))
  await mkdir(join(to, 'example'))
  if (example) await cp(example, join(to, 'example', basename(example)))
  await writeFile(join(to, 'example', 'example.json'), JSON.stringify({ file: example ? basename(example) : null }))
  if (to !== HERE) for (const file of PAGE) await cp(join(HERE, file), join(to, file))
  console.log(`${to}: built with ${entry.file}. Serve it: python3 -m http.server --directory ${to}`)
}

// A file of an installed package, wherever npm has put it.
function installed(path) {
  for (const folder of createRequire(join(process.cwd(), 'x')).resolve.paths('x')) {
    if (existsSync(join(folder, path))) return join(folder, path)
  }
  throw new Error(`${path.split('/')[0]}: not installed. Run: npm ci`)
}
