// CSV as spreadsheets and statistics programs write it: comma, semicolon or tab; decimal comma; quotes; UTF-8 or UTF-16.
import { openTidy } from './tidy.js'
import { BadFile } from './words.js'

const DELIMITERS = [',', ';', '\t', '|']

export async function readCsv(file, model) {
  const text = decoded(new Uint8Array(await file.arrayBuffer()), file.name)
  const delimiter = delimiterOf(text)
  const { names, columns, lines } = parsed(text, delimiter, file.name)
  if (names.every((name) => name !== '' && Number.isFinite(Number(name.replace(',', '.'))))) {
    const header = model.columns.map((column) => column.name).join(delimiter)
    throw new BadFile(`${file.name}: line 1 holds numbers, not the names of columns. Add a first line: ${header}`)
  }
  const table = { names, columns, where: (row) => `line ${lines[row]}`, decimalComma: delimiter !== ',' }
  return openTidy(table, file.name, model)
}

function decoded(bytes, name) {
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : 'utf-8'
  const text = new TextDecoder(encoding).decode(bytes) // it leaves the byte order mark out
  if (text.includes('\0')) throw new BadFile(`${name}: not text. Choose a CSV or Parquet file.`)
  return text
}

// The one that the first line has most of, outside of quotes.
function delimiterOf(text) {
  const line = text.slice(0, text.search(/[\r\n]|$/)).replace(/"[^"]*"/g, '')
  const counts = DELIMITERS.map((delimiter) => line.split(delimiter).length)
  return DELIMITERS[counts.indexOf(Math.max(...counts))]
}

function parsed(text, delimiter, name) {
  let place = 0
  let line = 1
  // Fields of the record at `place`; RFC 4180, and whatever ends a line.
  const record = () => {
    const fields = []
    for (;;) {
      let field = ''
      if (text[place] === '"') {
        const opened = line
        for (place++; ; place++) {
          const quote = text.indexOf('"', place)
          if (quote < 0) throw new BadFile(`${name}, line ${opened}: a quotation mark is not closed. Close or remove it.`)
          field += text.slice(place, quote)
          place = quote + 1
          if (text[place] !== '"') break
          field += '"'
        }
        line += field.split('\n').length - 1
      }
      const begin = place
      while (place < text.length && text[place] !== delimiter && text[place] !== '\n' && text[place] !== '\r') place++
      fields.push((field + text.slice(begin, place)).trim())
      if (text[place] !== delimiter || place >= text.length) break
      place++
    }
    if (text[place] === '\r' && text[place + 1] === '\n') place++
    place++
    return fields
  }
  const names = record()
  line++
  const columns = names.map(() => [])
  const lines = []
  while (place < text.length) {
    const at = line
    const fields = record()
    line++
    if (fields.length === 1 && fields[0] === '') continue // an empty line
    if (fields.length !== names.length) {
      throw new BadFile(`${name}, line ${at}: ${fields.length} fields, but line 1 names ${names.length} columns. Make them equal.`)
    }
    fields.forEach((field, index) => columns[index].push(field))
    lines.push(at)
  }
  return { names, columns, lines }
}
