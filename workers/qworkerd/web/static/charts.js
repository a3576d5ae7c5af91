// A crosshair with the numbers of a slot; a brush that shows a part of the time.
(() => {
  const make = (tag, name) => Object.assign(document.createElement(tag), { className: name });
  const tip = make('output', 'chart-tip'), cross = make('div', 'chart-cross'), brush = make('div', 'chart-brush');
  let plot, slot, start, marked;

  const svgOf = (p) => p.querySelector('.chart-svg');
  const rowsOf = (p) => p.closest('.chart').querySelectorAll('tbody tr');
  const hide = () => {
    [tip, cross, brush].forEach((e) => e.remove());
    marked?.classList.remove('current');
    plot = start = slot = undefined;
  };

  const show = (p, wanted) => {
    const rows = rowsOf(p);
    if (!rows.length) return;
    plot = p;
    slot = Math.max(0, Math.min(rows.length - 1, wanted));
    marked?.classList.remove('current');
    marked = rows[slot];
    marked.classList.add('current');
    const heads = p.closest('.chart').querySelectorAll('thead th');
    tip.replaceChildren(...[...marked.cells].flatMap((cell, i) => {
      const text = i ? `${heads[i].textContent} ${cell.textContent}` : cell.textContent;
      return i ? [make('br', ''), text] : [text];
    }));
    const x = (slot + 0.5) / rows.length;
    cross.style.left = `${x * 100}%`;
    p.append(cross, tip);
    tip.style.left = x < 0.5 ? `calc(${x * 100}% + 10px)` : 'auto';
    tip.style.right = x < 0.5 ? 'auto' : `calc(${(1 - x) * 100}% + 10px)`;
    if (start === undefined) return brush.remove();
    const [from, to] = [Math.min(start, slot), Math.max(start, slot) + 1];
    brush.style.left = `${from / rows.length * 100}%`;
    brush.style.right = `${100 - to / rows.length * 100}%`;
    p.append(brush);
  };

  const apply = () => {
    const { from, to } = svgOf(plot).dataset, width = (to - from) / rowsOf(plot).length;
    const iso = (n) => new Date((+from + n * width) * 1000).toISOString().slice(0, 19) + 'Z';
    const url = plot.closest('[data-brush]').dataset.brush;
    location.assign(url.replace('~from', iso(Math.min(start, slot))).replace('~to', iso(Math.max(start, slot) + 1)));
  };

  const at = (p, event) => {
    const box = svgOf(p).getBoundingClientRect();
    return Math.floor((event.clientX - box.left) / box.width * rowsOf(p).length);
  };
  const find = (event) => event.target.closest?.('.chart-plot');
  const on = (name, handle) => document.addEventListener(name, handle);

  on('pointermove', (event) => {
    const p = start === undefined || event.pointerType === 'touch' ? find(event) : plot;
    if (p) show(p, at(p, event));
    else if (plot && document.activeElement !== plot) hide();
  });
  on('pointerdown', (event) => {
    const p = event.button ? null : find(event);
    if (!p || event.pointerType === 'touch') return;
    start = undefined;
    show(p, at(p, event));
    start = slot;
    event.preventDefault();
    p.focus({ preventScroll: true });
  });
  on('pointerup', () => {
    if (start !== undefined && start !== slot) apply();
    start = undefined;
    brush.remove();
  });
  on('keydown', (event) => {
    const p = find(event), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!p || event.target !== p) return;
    if (step) {
      const before = slot ?? (step > 0 ? -1 : rowsOf(p).length);
      start = event.shiftKey ? start ?? before : undefined;
      show(p, before + step);
      event.preventDefault();
    } else if (event.key === 'Enter' && start !== undefined) apply();
    else if (event.key === 'Escape') hide();
  });
  on('focusout', (event) => find(event) === event.target && hide());

  const enliven = () => document.querySelectorAll('.chart-plot:not(.chart-live)').forEach((p) => {
    p.classList.add('chart-live');
    p.tabIndex = 0;
    p.setAttribute('role', 'group');
    p.setAttribute('aria-label', p.dataset.keys);
  });
  enliven();
  new MutationObserver(enliven).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ['class'] });
})();
