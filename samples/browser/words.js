// Words and numbers for people, and the one error that is meant for them.

/** A file that cannot be read as a whole: the message says where, what, and what to do. */
export class BadFile extends Error {}

/** 1 dataset, 34 datasets, 1,000 datasets. */
export const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`

/** a, b and c. */
export const listed = (names) => (names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`)

/** Four significant digits: 0.2466, 17.01, 4.474e-38. */
export function shown(number) {
  if (!Number.isFinite(number)) return String(number)
  const size = Math.abs(number)
  if (size >= 1e5 || (size < 1e-3 && size > 0)) return number.toExponential(3).replace('e+', 'e')
  return number.toPrecision(4)
}

/** The shortest decimal number that reads as this float32 again. */
export function exact(number) {
  for (let digits = 1; digits < 9; digits++) {
    const text = number.toPrecision(digits)
    if (Math.fround(Number(text)) === number) return String(Number(text))
  }
  return String(Number(number.toPrecision(9)))
}

/** A string as people quote it, not too long. */
export const quoted = (text) => `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`

/** An HTML element; what is given as text is text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(key, value)
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? '' : value)
  }
  made.append(...children.filter((child) => child !== null))
  return made
}
