// Tables with one observation a row: a column for each of the model's, and one that names the dataset.
import { BadFile, count, listed, quoted } from './words.js'

export const MOST_DATASETS = 20000 // what a page can show; more is for toolkit batch-predict
const ALL = '' // the choice of no column: all rows are one dataset
const USUAL = /^(dataset|data_?set_?id|id|subject|participant|subj|session|block)(_?(id|nr|no|number))?$/i

/**
 * Args:
 *   table: {names, columns: an array of values for each name, where: row -> where a person finds it, decimalComma}.
 */
export function openTidy(table, file, model) {
  const places = model.columns.map(({ name }) => placeOf(table, name, file, model))
  const others = table.names.filter((name, index) => name !== '' && !places.includes(index))
  const rows = table.columns[0].length
  if (!rows) throw new BadFile(`${file}: names of columns, and no rows below them. Add the rows of a dataset.`)
  const guess = guessed(table, others, rows, model)
  const chosenOf = (chosen) => (chosen.id !== undefined && (chosen.id === ALL || others.includes(chosen.id)) ? chosen.id : guess)
  return {
    choices: (chosen) => others.length === 0 ? [] : [{
      key: 'id',
      label: 'Rows of one dataset share the same',
      options: [...others.map((name) => [name, name]), [ALL, '(none: all rows are one dataset)']],
      value: chosenOf(chosen),
    }],
    read: async (chosen) => datasets(table, places, chosenOf(chosen), file, model, others),
  }
}

function placeOf(table, name, file, model) {
  const exactly = table.names.indexOf(name)
  if (exactly >= 0) return exactly
  const alike = table.names.flatMap((each, index) => (each.trim().toLowerCase() === name.toLowerCase() ? [index] : []))
  if (alike.length === 1) return alike[0]
  const wanted = listed(model.columns.map((column) => column.name))
  throw new BadFile(`${file}: no column ${quoted(name)}. It has ${listed(table.names.map(quoted))}; the model takes ${wanted}. Rename the column that holds it, or add it.`)
}

function guessed(table, others, rows, model) {
  if (rows === model.rows) return ALL
  const fits = others.find((name) => [...groups(table, name).values()].every((each) => each.length === model.rows))
  return fits ?? others.find((name) => USUAL.test(name)) ?? others[0] ?? ALL
}

// Map: value of the column -> its rows, in order of first appearance.
function groups(table, name) {
  const found = new Map()
  const values = table.columns[table.names.indexOf(name)]
  values.forEach((value, row) => {
    const key = String(value)
    const rows = found.get(key)
    if (rows) rows.push(row)
    else found.set(key, [row])
  })
  return found
}

function datasets(table, places, id, file, model, others) {
  const all = table.columns[0].length
  const found = id === ALL ? new Map([[file, Array.from({ length: all }, (_, row) => row)]]) : groups(table, id)
  if (found.size > MOST_DATASETS) {
    throw new BadFile(`${file}: ${count(found.size, 'dataset')}, more than the ${MOST_DATASETS.toLocaleString('en')} that this page shows. Split the file, or use toolkit batch-predict.`)
  }
  return Array.from(found, ([name, rows]) => {
    const { numbers, problem } = dataset(table, places, rows, model)
    const hint = id === ALL && rows.length > model.rows ? oneOfMany(others) : ''
    return { name, numbers, problem: problem && problem + hint }
  })
}

const oneOfMany = (others) => others.length
  ? ' If there are several datasets, choose above the column that names them.'
  : ' If there are several datasets, add a column that names the dataset of each row.'

function dataset(table, places, rows, model) {
  if (rows.length !== model.rows) {
    const todo = rows.length < model.rows ? 'Add what is missing.' : 'Take rows away.'
    return { numbers: null, problem: `${count(rows.length, 'row')}, but the model takes ${model.rows}. ${todo}` }
  }
  const numbers = new Float32Array(rows.length * places.length)
  for (let index = 0; index < numbers.length; index++) {
    const row = rows[Math.floor(index / places.length)]
    const place = places[index % places.length]
    const value = table.columns[place][row]
    numbers[index] = numberOf(value, table.decimalComma)
    if (!Number.isFinite(numbers[index])) {
      return { numbers: null, problem: `${table.where(row)}, column ${table.names[place]}: ${described(value)}` }
    }
  }
  return { numbers, problem: '' }
}

function numberOf(value, decimalComma) {
  if (typeof value !== 'string') return value === null || value === undefined ? NaN : Number(value)
  if (value === '') return NaN
  if (/^(true|false)$/i.test(value)) return value.length === 4 ? 1 : 0
  return Number(decimalComma ? value.replace(',', '.') : value)
}

function described(value) {
  if (value === '' || value === null || value === undefined) return 'there is no number. Fill it in.'
  if (/^[+-]?inf(inity)?$/i.test(value) || Number.isFinite(Number(value))) return `${value} is too large. Correct it.`
  if (/^nan?$/i.test(value)) return `${value} is not a number. Fill it in, or leave the dataset out.`
  return `${quoted(String(value))} is not a number. Correct it.`
}
