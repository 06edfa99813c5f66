// A page opened from disk may load no modules: this old-fashioned script is all that runs there.
if (location.protocol === 'file:') {
  document.getElementById('status').textContent =
    'This page was opened from disk, where browsers let it load nothing. Serve its folder: python3 -m http.server'
}
