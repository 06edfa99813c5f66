// Parquet files: one dataset a row, in any of the usual layouts; or one observation a row, as in CSV.
import { decompress } from './vendor/fzstd/index.mjs'
import { decompressBrotli } from './vendor/hyparquet-compressors/brotli.js'
import { gunzip } from './vendor/hyparquet-compressors/gzip.js'
import { decompressLz4, decompressLz4Raw } from './vendor/hyparquet-compressors/lz4.js'
import { parquetMetadataAsync, parquetReadObjects, parquetSchema } from './vendor/hyparquet/index.js'
import { MOST_DATASETS, openTidy } from './tidy.js'
import { BadFile, count, listed, quoted } from './words.js'

// What hyparquet does not undo itself; Snappy it does.
const compressors = {
  GZIP: (bytes, length) => gunzip(bytes, new Uint8Array(length)),
  BROTLI: decompressBrotli,
  ZSTD: (bytes) => decompress(bytes),
  LZ4: decompressLz4,
  LZ4_RAW: decompressLz4Raw,
}
const LOOKED_AT = 20 // rows, to find the column of the datasets by its shape
const ORDERS = [['row', 'one observation after the other'], ['column', 'one column after the other']]
const NAMING = /^(name|id|key)$|[_ ](id|name)$/i // a column whose values name the datasets

export async function readParquet(file, model) {
  const buffer = { byteLength: file.size, slice: (begin, end) => file.slice(begin, end).arrayBuffer() }
  const damaged = (error) => {
    throw new BadFile(`${file.name}: cannot be read as Parquet (${error.message}). Write or copy it again.`)
  }
  const metadata = await parquetMetadataAsync(buffer).catch(damaged)
  const tops = parquetSchema(metadata).children
  const rows = Number(metadata.num_rows)
  if (!rows) throw new BadFile(`${file.name}: has no rows. Choose a file with datasets.`)
  const read = (columns, rowEnd) =>
    parquetReadObjects({ file: buffer, metadata, columns, rowStart: 0, rowEnd, compressors, utf8: false }).catch(damaged)

  const names = model.columns.map((column) => column.name)
  const numeric = (name) => tops.some((top) => top.element.name === name && isScalar(top))
  if (names.every(numeric)) return tidy(file, model, tops, rows, read)
  if (rows > MOST_DATASETS) {
    throw new BadFile(`${file.name}: ${count(rows, 'row')}, more than the ${MOST_DATASETS.toLocaleString('en')} datasets that this page shows. Split the file, or use toolkit batch-predict.`)
  }
  const first = await read(tops.filter((top) => !isScalar(top)).map((top) => top.element.name), Math.min(rows, LOOKED_AT))
  const found = layouts(first, tops, names, model)
  if (!found.length) throw new BadFile(nothingFound(file, first, tops, model))
  const naming = tops.filter(isScalar).map((top) => top.element.name)
    .find((name) => NAMING.test(name) && !found.some((layout) => layout.columns.includes(name)))
  return oneEach(file, model, metadata, found, naming, rows, read)
}

// One value a row: a number, or text, whose values may name datasets. Other bytes may be a dataset.
const isScalar = ({ children, element }) =>
  !children.length && element.repetition_type !== 'REPEATED' && (element.type !== 'BYTE_ARRAY' || isText(element)) &&
  (element.type !== 'FIXED_LEN_BYTE_ARRAY' || element.logical_type?.type === 'FLOAT16')
const isText = (element) => element.converted_type === 'UTF8' || element.logical_type?.type === 'STRING'

async function tidy(file, model, tops, rows, read) {
  if (rows > MOST_DATASETS * model.rows) {
    throw new BadFile(`${file.name}: ${count(rows, 'row')}, more than this page takes. Split the file, or use toolkit batch-predict.`)
  }
  const names = tops.filter(isScalar).map((top) => top.element.name)
  const records = await read(names)
  const columns = names.map((name) => records.map((record) => record[name]))
  return openTidy({ names, columns, where: (row) => `row ${row}`, decimalComma: false }, file.name, model)
}

function oneEach(file, model, metadata, found, naming, rows, read) {
  const layoutOf = (chosen) => found.find((layout) => layout.key === chosen.column) ?? found[0]
  // A fixed-shape tensor says itself how its numbers lie, if nothing permutes them.
  const schema = metadata.key_value_metadata?.find((pair) => pair.key === 'ARROW:schema')?.value
  const arrow = schema ? atob(schema) : ''
  const known = arrow.includes('arrow.fixed_shape_tensor') && !arrow.includes('permutation')
  const orderOf = (chosen) => chosen.order ?? 'row'
  return {
    choices: (chosen) => [
      ...(found.length < 2 ? [] : [{
        key: 'column', label: 'Column of the datasets', options: found.map((each) => [each.key, each.key]), value: layoutOf(chosen).key,
      }]),
      ...(layoutOf(chosen).kind !== 'flat' || known || model.columns.length < 2 ? [] : [{
        key: 'order', label: 'Numbers of a dataset lie', options: ORDERS, value: orderOf(chosen),
      }]),
    ],
    read: async (chosen) => {
      const layout = layoutOf(chosen)
      const records = await read([...layout.columns, ...(naming ? [naming] : [])], rows)
      const order = known ? 'row' : orderOf(chosen)
      return records.map((record, row) => {
        const { numbers, problem } = dataset(record, layout, order, model)
        const named = naming && record[naming] !== null
        return { name: named ? String(record[naming]) : `row ${row}`, numbers, problem: problem && named ? `row ${row}: ${problem}` : problem }
      })
    },
  }
}

/** The ways to read the rows as datasets: {key, kind, columns}. */
function layouts(first, tops, names, model) {
  const found = []
  if (names.every((name) => tops.some((top) => top.element.name === name))) {
    const layout = { key: names.join(', '), kind: 'separate', columns: names }
    if (first.some((record) => fits(record, layout, model))) found.push(layout)
  }
  for (const top of tops) {
    const key = top.element.name
    for (const kind of ['nested', 'records', 'struct', 'flat', 'bytes']) {
      const layout = { key, kind, columns: [key] }
      if (first.some((record) => fits(record, layout, model))) found.push(layout)
    }
  }
  return found
}

const fits = (record, layout, model) => {
  const values = valuesOf(record, layout, 'row', model)
  return values !== null && values.length === model.rows * model.columns.length
}

/** All numbers of a record in the model's order, row after row; null where it is of another layout. */
function valuesOf(record, { kind, columns: [key] }, order, model) {
  const names = model.columns.map((column) => column.name)
  const value = record[key]
  const isList = (each) => Array.isArray(each) || (ArrayBuffer.isView(each) && !(each instanceof Uint8Array))
  switch (kind) {
    case 'separate':
    case 'struct': {
      const lists = names.map((name) => (kind === 'separate' ? record[name] : value?.[name]))
      if (!lists.every(isList) || !lists.every((list) => list.length === lists[0].length)) return null
      return transposed(lists.map((list) => Array.from(list)).flat(), lists[0].length, names.length)
    }
    case 'nested':
      if (!isList(value) || !Array.from(value).every((row) => isList(row) && row.length === names.length)) return null
      return value.flatMap((row) => Array.from(row))
    case 'records':
      if (!isList(value) || !Array.from(value).every((row) => row && names.every((name) => name in Object(row)))) return null
      return value.flatMap((row) => names.map((name) => row[name]))
    case 'flat': {
      if (!isList(value) || Array.from(value).some((each) => each !== null && typeof each === 'object')) return null
      const numbers = Array.from(value)
      return order === 'row' ? numbers : transposed(numbers, numbers.length / names.length, names.length)
    }
    default: { // bytes: float32 or float64, little-endian
      if (!(value instanceof Uint8Array)) return null
      const numbers = model.rows * names.length
      const copy = value.slice().buffer
      return value.length === numbers * 4 ? new Float32Array(copy) : value.length === numbers * 8 ? new Float64Array(copy) : null
    }
  }
}

// Column after column -> row after row.
const transposed = (numbers, rows, columns) =>
  numbers.map((_, index) => numbers[(index % columns) * rows + Math.floor(index / columns)])

function dataset(record, layout, order, model) {
  const columns = model.columns.length
  const values = valuesOf(record, layout, order, model)
  if (values === null || values.length !== model.rows * columns) {
    const what = values === null ? shapeOf(record[layout.columns[0]]) : `${count(values.length / columns, 'row')} of ${columns}`
    return { numbers: null, problem: `${layout.key} holds ${what}, but the model takes ${model.rows} rows of ${columns}. Correct the row.` }
  }
  const numbers = new Float32Array(values.length)
  for (let index = 0; index < numbers.length; index++) {
    numbers[index] = values[index] === null ? NaN : Number(values[index])
    if (!Number.isFinite(numbers[index])) {
      const place = `observation ${Math.floor(index / columns)}, column ${model.columns[index % columns].name}`
      return { numbers: null, problem: `${place}: ${values[index] ?? 'nothing'} is not a number that float32 holds. Correct the row.` }
    }
  }
  return { numbers, problem: '' }
}

function nothingFound(file, first, tops, model) {
  const names = model.columns.map((column) => column.name)
  const seen = tops.map((top) => {
    const name = top.element.name
    const record = first.find((each) => each[name] !== null && each[name] !== undefined)
    return record ? `${quoted(name)} (${shapeOf(record[name])})` : quoted(name)
  })
  return `${file.name}: no column holds datasets of ${model.rows} rows of (${names.join(', ')}). It has ${listed(seen)}. ` +
    `Put one dataset in each row, as a list of ${model.rows} lists; or one observation, in columns ${listed(names)}.`
}

function shapeOf(value) {
  if (value === null || value === undefined) return 'nothing'
  if (value instanceof Uint8Array) return count(value.length, 'byte')
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) return typeof value === 'object' ? 'a record' : `the value ${value}`
  const inside = new Set(Array.from(value, (each) => (Array.isArray(each) || ArrayBuffer.isView(each) ? each.length : -1)))
  if (inside.size !== 1) return `a list of ${value.length}, unlike each other`
  const [length] = inside
  return length < 0 ? `a list of ${value.length}` : `${count(value.length, 'row')} of ${length}`
}
