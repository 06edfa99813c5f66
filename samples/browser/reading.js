// From a file to datasets. A dataset is {name, numbers: Float32Array of rows x columns or null, problem: '' or why not}.
import { readCsv } from './csv.js'
import { readParquet } from './parquet.js'
import { BadFile } from './words.js'

const MOST_BYTES = 400e6 // a page holds the text of a file in one string, which browsers limit to about 500 MB

/**
 * What a file holds, opened once: {read(chosen), choices(chosen)}.
 *
 * choices(chosen) are the questions that the file leaves open, [{key, label, options: [[value, text]], value}], and
 * chosen is {key: value} of those that were answered; read(chosen) gives the datasets.
 */
export async function openFile(file, model) {
  if (!file.size) throw new BadFile(`${file.name}: empty. Choose a file with datasets.`)
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer())
  if (String.fromCharCode(...start) === 'PAR1') return readParquet(file, model)
  if (/\.parquet$/i.test(file.name)) {
    throw new BadFile(`${file.name}: not a Parquet file; it does not begin with PAR1. Write or copy it again.`)
  }
  if (file.size > MOST_BYTES) {
    throw new BadFile(`${file.name}: too large for a page. Split it, or use toolkit batch-predict.`)
  }
  return readCsv(file, model)
}
