// Runs an ONNX file in onnxruntime-web, the engine that web pages use: float32 from stdin, float32 to stdout.
//
//     node estimates.mjs ENGINE.mjs MODEL.onnx all|disabled ROWS COLUMNS < datasets > answer
//
// Datasets come one after the other, row by row, little-endian. The answer is the number of estimates that a dataset has,
// as float32 too, then the estimates. The first line of stderr says why not; exit code 3: the engine does not take the file,
// 4: the file does not take datasets of this shape.
import { readFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'

const BATCH = 32 // where the file leaves it open: a batch stays in cache

const [engine, model, optimization, rows, columns] = process.argv.slice(2)
const ort = await import(pathToFileURL(engine).href)
ort.env.wasm.numThreads = 1
ort.env.logLevel = 'error'

const session = await ort.InferenceSession.create(await readFile(model), {
  executionProviders: ['wasm'],
  graphOptimizationLevel: optimization,
}).catch((error) => {
  console.error(String(error.message ?? error).split('\n')[0])
  process.exit(3)
})
const [input] = session.inputMetadata
const [output] = session.outputMetadata
const [batch, ...shape] = input.shape
const size = typeof batch === 'number' ? batch : BATCH
if (String(shape) !== `${rows},${columns}`) {
  console.error(`(n, ${shape.join(', ')})`)
  process.exit(4)
}
const numbers = shape.reduce((product, length) => product * length, 1)

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const bytes = new Uint8Array(Buffer.concat(chunks)) // a copy that begins at an address divisible by 4
const datasets = new Float32Array(bytes.buffer)

const answer = [new Float32Array([output.shape.at(-1)])]
for (let begin = 0; begin < datasets.length; begin += size * numbers) {
  const filled = new Float32Array(size * numbers) // the last batch is padded with zeros
  const taken = datasets.subarray(begin, begin + filled.length)
  filled.set(taken)
  const results = await session.run({ [input.name]: new ort.Tensor('float32', filled, [size, ...shape]) })
  const estimates = results[output.name]
  answer.push(estimates.data.slice(0, (taken.length / numbers) * estimates.dims.at(-1)))
}
for (const part of answer) process.stdout.write(new Uint8Array(part.buffer))
