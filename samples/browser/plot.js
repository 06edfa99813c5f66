// Estimates of each parameter, over the range that the model was trained in: as dots, dataset after dataset, or, where they
// would cover each other, as a histogram that lies on its side.
import { count, shown } from './words.js'

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 180
const [TOP, RIGHT, BOTTOM, LEFT] = [10, 2, 8, 42]
export const MOST_DOTS = 1000
const BINS = 40

/** Draw one panel for each parameter into `place`; returns {choose(index)}, and calls `onChoose(index)`. */
export function drawPlots(place, model, items, estimates, onChoose) {
  const panels = model.parameters.map((parameter, index) => panel(parameter, items, estimates.map((one) => one[index]), onChoose))
  place.replaceChildren(...panels.map((each) => each.figure))
  let chosen = -1
  const draw = () => panels.forEach((each) => each.draw(chosen))
  // Redrawn when its width changes: text keeps its size.
  const observer = new ResizeObserver(draw)
  observer.observe(place)
  return {
    choose: (index) => { chosen = index; draw() },
    stop: () => observer.disconnect(),
  }
}

function panel({ name, minimum, maximum }, items, values, onChoose) {
  const low = Math.min(...extent(values), minimum)
  const high = Math.max(...extent(values), maximum)
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1
  const [bottom, top] = [Math.max(low - margin, 0), high + margin]
  const title = document.createElement('figcaption')
  const svg = shape('svg', {
    role: 'img', height: HEIGHT,
    'aria-label': `${name}: ${count(values.length, 'estimate')} from ${shown(extent(values)[0])} to ${shown(extent(values)[1])}; trained from ${shown(minimum)} to ${shown(maximum)}`,
  })
  const figure = document.createElement('figure')
  figure.append(title, svg)
  let x = () => 0
  const y = (value) => TOP + ((top - value) / (top - bottom)) * (HEIGHT - TOP - BOTTOM)

  function draw(chosen) {
    const width = Math.max(svg.clientWidth, 160)
    x = (index) => LEFT + 6 + ((index + 0.5) / values.length) * (width - LEFT - RIGHT - 12)
    svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`)
    const dotted = values.length <= MOST_DOTS
    const marks = dotted ? dots(values, x, y) : bars(values, y, width - LEFT - RIGHT - 12)
    svg.replaceChildren(
      shape('rect', { class: 'trained', x: LEFT, width: width - LEFT - RIGHT, y: y(maximum), height: y(minimum) - y(maximum) }),
      ...ticks(bottom, top).flatMap((tick) => [
        shape('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(tick.value), y2: y(tick.value) }),
        text(tick.text, { class: 'tick', x: LEFT - 7, y: y(tick.value) + 4, 'text-anchor': 'end' }),
      ]),
      marks,
      ...(chosen < 0 ? [] : dotted ? [
        shape('line', { class: 'chosen-line', x1: x(chosen), x2: x(chosen), y1: TOP, y2: HEIGHT - BOTTOM }),
        shape('circle', { class: 'chosen', cx: x(chosen), cy: y(values[chosen]), r: 6 }),
      ] : [shape('line', { class: 'chosen-line', x1: LEFT, x2: width - RIGHT, y1: y(values[chosen]), y2: y(values[chosen]) })]),
    )
    const said = chosen >= 0 ? `${shown(values[chosen])} · ${items[chosen].name}` : values.length === 1 ? shown(values[0]) : `${shown(extent(values)[0])} to ${shown(extent(values)[1])}`
    title.replaceChildren(strong(name), ` ${said}`)
  }

  if (values.length <= MOST_DOTS) svg.classList.add('pointed-at')
  svg.addEventListener('click', (event) => {
    if (values.length > MOST_DOTS) return
    const box = svg.getBoundingClientRect()
    const [px, py] = [event.clientX - box.left, event.clientY - box.top]
    let [nearest, least] = [-1, 24 ** 2] // pixels
    values.forEach((value, index) => {
      const distance = (x(index) - px) ** 2 + (y(value) - py) ** 2
      if (distance < least) [nearest, least] = [index, distance]
    })
    onChoose(nearest)
  })
  return { figure, draw }
}

function dots(values, x, y) {
  return shape('path', { class: 'dots', d: values.map((value, index) => `M${x(index).toFixed(1)} ${y(value).toFixed(1)}h0`).join('') })
}

function bars(values, y, width) {
  const [low, high] = extent(values)
  const counts = new Array(BINS).fill(0)
  for (const value of values) counts[Math.min(BINS - 1, Math.floor(((value - low) / (high - low || 1)) * BINS))]++
  const most = Math.max(...counts)
  const edge = (bin) => y(low + (bin / BINS) * (high - low)).toFixed(1)
  const path = counts.map((number, bin) => `M${LEFT} ${edge(bin)}h${((number / most) * width).toFixed(1)}V${edge(bin + 1)}H${LEFT}z`)
  return shape('path', { class: 'bars', d: path.join('') })
}

// Two to six round numbers from bottom to top.
function ticks(bottom, top) {
  const rough = (top - bottom) / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough)
  const found = []
  for (let number = Math.ceil(bottom / step); number * step <= top; number++) {
    const value = number * step
    const digits = Math.max(0, -Math.floor(Math.log10(step)))
    found.push({ value, text: digits > 5 || value >= 1e5 ? value.toExponential(0) : value.toFixed(digits) })
  }
  return found
}

const extent = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

function text(content, attributes) {
  const made = shape('text', attributes)
  made.textContent = content
  return made
}

function strong(content) {
  const made = document.createElement('strong')
  made.textContent = content
  return made
}
