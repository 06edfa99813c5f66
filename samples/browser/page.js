// The page: a file goes in; a table, plots and a CSV come out.
import { loadModel } from './model.js'
import { openFile } from './reading.js'
import { drawPlots, MOST_DOTS } from './plot.js'
import { drawTable } from './table.js'
import { BadFile, count, element, exact, listed, shown } from './words.js'

const MOST_LISTED = 8 // problems and warnings
const at = (id) => document.getElementById(id)
let [model, opened, chosen, plots, result] = [null, null, {}, null, null]
let turn = 0 // of the file or choice that was last asked for: what an older one gives is thrown away

start()

async function start() {
  try {
    model = await loadModel()
  } catch (error) {
    at('status').textContent = ''
    complain(error)
    return
  }
  describe()
  at('file').disabled = false
  at('file').addEventListener('change', () => {
    if (at('file').files.length) take(at('file').files[0])
    at('file').value = '' // the same file again, once mended, is a change too
  })
  addEventListener('dragover', (event) => {
    event.preventDefault()
    document.body.classList.add('dropping')
  })
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) document.body.classList.remove('dropping')
  })
  addEventListener('drop', (event) => {
    event.preventDefault()
    document.body.classList.remove('dropping')
    if (event.dataTransfer.files.length > 1) complain(new BadFile('Several files at once. Drop one.'))
    else if (event.dataTransfer.files.length) take(event.dataTransfer.files[0])
  })
  at('download').addEventListener('click', download)
  at('status').textContent = 'Ready.'
  document.documentElement.dataset.ready = 'yes'
  const example = await fetch('example/example.json').then((answer) => answer.json()).catch(() => ({ file: null }))
  at('example').hidden = !example.file
  at('example').disabled = false
  at('example').addEventListener('click', async () => {
    const answer = await fetch(`example/${example.file}`)
    take(new File([await answer.blob()], example.file))
  })
}

function describe() {
  const parameters = listed(model.parameters.map((parameter) => parameter.name))
  const columns = model.columns.map((column) => column.name)
  at('title').textContent = `Estimate ${parameters}`
  document.title = `Estimate ${parameters}`
  at('takes').textContent = `from datasets of ${model.rows} rows of ${listed(columns)}, in a CSV or Parquet file`
  const header = ['dataset', ...columns].join(',')
  const ranges = model.columns.filter((column) => Number.isFinite(column.minimum))
    .map((column) => `${column.name} from ${Number(shown(column.minimum))} to ${Number(shown(column.maximum))}`)
  at('format-text').replaceChildren(
    element('p', {}, element('strong', {}, 'CSV'), ` with the columns ${listed(columns)}, one observation in each line: ${model.rows} lines are a dataset. `,
      'For several datasets, add a column whose values tell them apart. Semicolons, tabs and decimal commas are understood.'),
    element('pre', {}, `${header}\n${example('first')}\n${example('first')}\n…\n${example('second')}`),
    element('p', {}, element('strong', {}, 'Parquet'), ` with the same columns, or with one dataset in each row: a list of ${model.rows} lists of ${columns.length}, `,
      `a list for each column, a list of records, or little-endian float32 bytes.`),
    ranges.length ? element('p', {}, `The model was trained on ${listed(ranges)}. Datasets beyond that are estimated, and marked.`) : '',
  )
  const { file, lower_bound: bounds, sha256 } = model.file
  at('about').replaceChildren(
    element('p', {}, `${file}, ${sha256.slice(0, 12)}. Whatever finite numbers go in, each estimate is at least ${shown(Math.min(...Object.values(bounds)))}: proved of this file.`),
  )
}

// A line of a made-up file: whole numbers where the training had such.
const example = (name) => [name, ...model.columns.map(({ minimum, maximum }) =>
  !Number.isFinite(maximum - minimum) ? '0.5' : Number.isInteger(maximum) ? maximum : shown((minimum + maximum) / 4))].join(',')

async function take(file) {
  const mine = ++turn
  chosen = {}
  opened = null
  clear()
  at('status').textContent = `Reading ${file.name} …`
  try {
    const one = await openFile(file, model)
    if (mine !== turn) return
    opened = { name: file.name, ...one }
    await show(mine)
  } catch (error) {
    if (mine === turn) complain(error, file.name)
  }
}

async function choose(key, value) {
  const mine = ++turn
  chosen = { ...chosen, [key]: value }
  at('error').hidden = true
  try {
    await show(mine)
  } catch (error) {
    if (mine === turn) complain(error, opened.name)
  }
}

async function show(mine) {
  askChoices(opened.choices(chosen))
  const items = await opened.read(chosen)
  if (mine !== turn) return
  const good = items.filter((item) => !item.problem)
  for (const item of good) item.outside = outside(item.numbers)
  const began = performance.now()
  at('status').textContent = `Estimating ${count(good.length, 'dataset')} …`
  const estimates = await model.estimate(good.map((item) => item.numbers), (done) => {
    if (mine !== turn) return false
    at('progress').hidden = false
    at('progress').value = done / good.length
    return true
  })
  if (mine !== turn) return
  at('progress').hidden = true
  if (!good.length) {
    at('results').hidden = true
    const [{ name, problem }] = items
    const others = items.length > 1 ? ` All ${count(items.length, 'dataset')} are like that, or otherwise wrong.` : ''
    throw new BadFile(`${opened.name}: ${items.length > 1 ? `dataset ${name}, ` : ''}${problem}${others}`)
  }
  const seconds = (performance.now() - began) / 1000
  showResults(items, good, estimates, seconds)
}

function askChoices(choices) {
  const focused = document.activeElement?.id
  at('choices').hidden = !choices.length
  at('choices').replaceChildren(...choices.map(({ key, label, options, value }) => {
    const select = element('select', { id: `choice-${key}`, change: (event) => choose(key, event.target.value) },
      ...options.map(([each, text]) => element('option', { value: each, selected: each === value }, text)))
    return element('p', {}, element('label', { for: `choice-${key}` }, label), ' ', select)
  }))
  if (focused?.startsWith('choice-')) at(focused)?.focus()
}

function showResults(items, good, estimates, seconds) {
  result = { name: opened.name, items, estimates: new Map(good.map((item, index) => [item, estimates[index]])) }
  at('results').hidden = false
  at('results-title').textContent = `Estimates of ${good.length === 1 ? 'one dataset' : count(good.length, 'dataset')}`
  const smallest = model.parameters.map(({ name }, index) => {
    const place = estimates.reduce((least, one, each) => (one[index] < estimates[least][index] ? each : least), 0)
    return `${name} ${shown(estimates[place][index])}${good.length > 1 ? ` (${good[place].name})` : ''}`
  })
  at('facts').textContent = good.length === 1
    ? `From ${opened.name}. All are finite and positive.`
    : `From ${opened.name}, in ${seconds < 0.1 ? 'less than 0.1' : seconds.toFixed(1)} s. All are finite and positive; the smallest are ${listed(smallest)}.`
  list(at('problems'), items.filter((item) => item.problem), (bad) => `${count(bad.length, 'dataset')} could not be estimated`,
    (item) => [element('strong', {}, item.name), ' ', item.problem])
  list(at('warnings'), good.filter((item) => item.outside),
    (bad) => bad.length === 1 ? '1 dataset lies outside of what the model was trained on: take care with its estimates'
      : `${count(bad.length, 'dataset')} lie outside of what the model was trained on: take care with their estimates`,
    (item) => [element('strong', {}, item.name), ' ', item.outside])
  at('how-to-mark').textContent = good.length === 1 ? ''
    : good.length > MOST_DOTS ? 'The bars say how many datasets have such an estimate. Choose a name in the table to mark it.'
      : 'Each dot is a dataset, in the order of the file. Choose a dot, or a name in the table, to mark it everywhere.'
  plots?.stop()
  const mark = (index, show) => {
    plots.choose(index)
    table.choose(index, show)
  }
  const table = drawTable(at('table'), model, good, estimates, (index) => mark(index, false))
  plots = drawPlots(at('plots'), model, good, estimates, (index) => mark(index, true))
  const rejected = items.length - good.length
  at('status').textContent = `${count(items.length, 'dataset')} read: ${good.length.toLocaleString('en')} estimated, ${rejected.toLocaleString('en')} not.`
}

function list(place, bad, title, line) {
  place.hidden = !bad.length
  const more = bad.length > MOST_LISTED ? element('p', {}, `and ${count(bad.length - MOST_LISTED, 'more')}`.replace(/s$/, '')) : null
  place.replaceChildren(...(bad.length ? [
    element('h3', {}, title(bad)), element('ul', {}, ...bad.slice(0, MOST_LISTED).map((item) => element('li', {}, ...line(item)))),
    ...(more ? [more] : []),
  ] : []))
}

// In words, where a column leaves the range that the model was trained on; empty where none does.
function outside(numbers) {
  const found = model.columns.flatMap(({ name, minimum, maximum }, column) => {
    let [low, high] = [Infinity, -Infinity]
    for (let index = column; index < numbers.length; index += model.columns.length) {
      low = Math.min(low, numbers[index])
      high = Math.max(high, numbers[index])
    }
    const range = `trained from ${Number(shown(minimum))} to ${Number(shown(maximum))}`
    if (high > Math.fround(maximum)) return [`${name} is up to ${shown(high)}, ${range}`]
    return low < Math.fround(minimum) ? [`${name} is down to ${shown(low)}, ${range}`] : []
  })
  return found.join('; ')
}

function complain(error, name) {
  clear()
  const known = error instanceof BadFile || !name
  if (!known) console.warn(error)
  at('error').hidden = false
  at('error').replaceChildren(
    element('strong', {}, name ? 'This file cannot be used. ' : ''),
    known ? error.message : `${name}: ${error.message}`,
  )
  if (opened && name === opened.name) askChoices(opened.choices(chosen))
}

function clear() {
  at('error').hidden = true
  at('results').hidden = true
  at('choices').hidden = true
  at('progress').hidden = true
  at('status').textContent = ''
  result = null
}

// Every dataset in the order of the file; those without estimates say why in the last column.
function download() {
  const bad = result.items.some((item) => item.problem)
  const names = ['dataset', ...model.parameters.map((parameter) => `predicted_${parameter.name}`), ...(bad ? ['problem'] : [])]
  const rows = result.items.map((item) => {
    const estimates = result.estimates.get(item)
    const numbers = model.parameters.map((_, index) => (estimates ? exact(estimates[index]) : ''))
    return [item.name, ...numbers, ...(bad ? [item.problem] : [])]
  })
  const text = [names, ...rows].map((row) => row.map(field).join(',')).join('\r\n') + '\r\n'
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv' }))
  const link = element('a', { href: url, download: `${result.name.replace(/\.\w+$/, '')}.predictions.csv` })
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10000)
}

const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value)
