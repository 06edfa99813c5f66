// The table of estimates: sorted by any column, a hundred datasets at a time, one of them chosen.
import { count, element, shown } from './words.js'

const PAGE = 100

/** Fill `place`; returns {choose(index)}, and calls `onChoose(index)` with -1 for none. */
export function drawTable(place, model, items, estimates, onChoose) {
  const columns = [{ title: 'dataset', key: (index) => index }, ...model.parameters.map(({ name }, parameter) => ({
    title: name, key: (index) => estimates[index][parameter],
  }))]
  const order = items.map((_, index) => index)
  let [sorted, rising, page, chosen] = [0, true, 0, -1]

  const body = element('tbody')
  const pager = element('p', { class: 'pager' })
  const heads = columns.map(({ title }, index) => {
    const button = element('button', { type: 'button', class: 'sort', click: () => sort(index) }, title, element('span', { 'aria-hidden': 'true' }))
    return element('th', { scope: 'col' }, button)
  })
  const table = element('table', {},
    element('caption', { class: 'for-screen-readers' }, 'Estimates; the headings sort, the names mark a dataset in the plots'),
    element('thead', {}, element('tr', {}, ...heads)), body)
  place.replaceChildren(element('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Table of estimates' }, table), pager)

  function sort(column) {
    rising = column === sorted ? !rising : true
    sorted = column
    const { key } = columns[column]
    order.sort((a, b) => (rising ? 1 : -1) * (key(a) - key(b)) || a - b)
    page = 0
    draw()
  }

  function draw() {
    heads.forEach((head, index) => {
      head.setAttribute('aria-sort', index !== sorted ? 'none' : rising ? 'ascending' : 'descending')
      head.querySelector('span').textContent = index !== sorted ? '' : rising ? ' ▲' : ' ▼'
    })
    body.replaceChildren(...order.slice(page * PAGE, (page + 1) * PAGE).map(row))
    const pages = Math.ceil(items.length / PAGE)
    pager.hidden = pages < 2
    const step = (text, by) => element('button', {
      type: 'button', class: 'button', disabled: page + by < 0 || page + by >= pages,
      click: () => { page += by; draw(); pager.querySelector(by > 0 ? 'button:last-of-type' : 'button').focus() },
    }, text)
    const shownRows = `${(page * PAGE + 1).toLocaleString('en')} to ${Math.min((page + 1) * PAGE, items.length).toLocaleString('en')} of ${count(items.length, 'dataset')}`
    pager.replaceChildren(step('Previous', -1), element('span', {}, shownRows), step('Next', 1))
  }

  function row(index) {
    const { name, outside } = items[index]
    const button = element('button', {
      type: 'button', class: 'name', 'aria-pressed': String(index === chosen), click: () => onChoose(index === chosen ? -1 : index),
    }, name)
    return element('tr', { class: index === chosen ? 'chosen' : null },
      element('th', { scope: 'row' }, button, outside ? element('span', { class: 'outside', title: outside }, ' outside training') : null),
      ...Array.from(estimates[index], (value) => element('td', {}, shown(value))))
  }

  draw()
  return {
    choose(index, show) {
      chosen = index
      const place = order.indexOf(index)
      if (index >= 0) page = Math.floor(place / PAGE)
      const focused = document.activeElement?.classList.contains('name')
      draw()
      const button = index >= 0 ? body.children[place % PAGE].querySelector('button') : null
      if (focused) button?.focus()
      else if (show) button?.scrollIntoView({ block: 'nearest' })
    },
  }
}
