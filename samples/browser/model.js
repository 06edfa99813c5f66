// The model beside this page: what it takes and gives, and its estimates.
import * as ort from './vendor/onnxruntime-web/ort.wasm.bundle.min.mjs'

const BATCH = 32 // fixed, the last one padded: a dataset's estimates do not depend on how many others come along
const SMALLEST = 2 ** -126 // the smallest normal float32, which every estimate is promised to reach
const PAUSE_MILLISECONDS = 40 // after which the page may answer to its user

ort.env.wasm.numThreads = 1
ort.env.wasm.wasmPaths = { wasm: new URL('./vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm', import.meta.url).href }
ort.env.logLevel = 'error'

/** Load `model/`: {rows, columns: [{name, minimum, maximum}], parameters: [{name, minimum, maximum}], file, estimate}. */
export async function loadModel() {
  const manifest = await (await fetched('model/manifest.json')).json()
  const [file] = manifest.files
  const content = await (await fetched(`model/${file.file}`)).arrayBuffer()
  await check(content, file)
  const session = await ort.InferenceSession.create(content, { executionProviders: ['wasm'] })
  const { rows, columns: names, ranges, sorted_rows: sortedRows } = manifest.input
  const columns = names.map((name, index) => ({ name, ...(ranges?.[index] ?? { minimum: -Infinity, maximum: Infinity }) }))
  const { parameters } = manifest
  const shape = [rows, columns.length]

  /** Float32Array of parameters, for each Float32Array of rows x columns; `goOn` is told how many are done, and may say no. */
  async function estimate(datasets, goOn) {
    const estimates = []
    let paused = performance.now()
    for (let begin = 0; begin < datasets.length; begin += BATCH) {
      const batch = datasets.slice(begin, begin + BATCH)
      const numbers = new Float32Array(BATCH * rows * columns.length)
      batch.forEach((dataset, index) => {
        numbers.set(sortedRows ? sorted(dataset, columns.length) : dataset, index * dataset.length)
      })
      const results = await session.run({ [session.inputNames[0]]: new ort.Tensor('float32', numbers, [BATCH, ...shape]) })
      const given = results[session.outputNames[0]].data
      batch.forEach((_, index) => {
        const one = given.slice(index * parameters.length, (index + 1) * parameters.length)
        if (!one.every((value) => value >= SMALLEST && value < Infinity)) {
          throw new Error(`The model gave ${one.join(', ')}, not positive numbers. Do not use it: run toolkit verify.`)
        }
        estimates.push(one)
      })
      if (performance.now() - paused > PAUSE_MILLISECONDS) {
        if (!goOn(estimates.length)) return estimates
        await new Promise((go) => setTimeout(go))
        paused = performance.now()
      }
    }
    return estimates
  }
  return { rows, columns, parameters, file, estimate }
}

/** The dataset with its rows ascending by the first column, rows alike there by the next: as the network learned them. */
function sorted(dataset, columns) {
  const rows = Array.from({ length: dataset.length / columns }, (_, row) => dataset.subarray(row * columns, (row + 1) * columns))
  rows.sort((one, other) => {
    const column = one.findIndex((value, index) => value !== other[index])
    return column < 0 ? 0 : one[column] - other[column]
  })
  return Float32Array.from(rows.flatMap((row) => Array.from(row)))
}

async function fetched(path) {
  const answer = await fetch(path)
  if (!answer.ok) throw new Error(`${path}: not there. Build the page: npm ci, then npm run build.`)
  return answer
}

async function check(content, file) {
  if (!globalThis.crypto?.subtle) return // only pages served by https, or from this machine, have it
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', content))
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
  if (hex !== file.sha256) throw new Error(`model/${file.file}: not the file that was verified. Build the page again.`)
}
