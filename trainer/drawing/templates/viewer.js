"use strict";
(() => {
  const canvas = document.getElementById("view");
  if (!canvas) return;
  const spaces = JSON.parse(document.getElementById("data").textContent).spaces;
  const context = canvas.getContext("2d");
  const status = document.getElementById("status");
  const isOn = (id) => { const box = document.getElementById(id); return box ? box.checked : true; };

  const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((x) => x / n); };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  for (const space of spaces) {
    if (space.points) {
      const raw = bytes(space.points.positions), view = new DataView(raw.buffer), n = raw.length / 6;
      space.xyz = new Float32Array(3 * n);
      for (let i = 0; i < 3 * n; i++) space.xyz[i] = space.points.origin[i % 3] + space.points.step * view.getUint16(2 * i, true);
      space.rgb = bytes(space.points.colours);
    }
    // Two directions along the ground; the first is where the cameras look on average.
    let forward = [0, 0, 0];
    for (const camera of space.cameras) forward = add(forward, camera.forward);
    forward = add(forward, space.up, -dot(forward, space.up));
    if (Math.hypot(...forward) < 1e-3) forward = cross(space.up, Math.abs(space.up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0]);
    space.ahead = unit(forward);
    space.side = cross(space.ahead, space.up);
    // Middle and radius of what is shown: all boxes and cameras, but far points alone do not set the scale.
    const spots = [], loose = [];
    for (const box of space.boxes) for (const line of box.lines) spots.push(...line);
    for (const camera of space.cameras) spots.push(camera.centre);
    if (space.xyz) for (let i = 0; i < space.xyz.length; i += 3 * Math.max(1, Math.floor(space.xyz.length / 6000))) loose.push([...space.xyz.subarray(i, i + 3)]);
    const span = [0, 1, 2].map((axis) => {
      const sorted = loose.map((p) => p[axis]).sort((a, b) => a - b), cut = Math.floor(sorted.length * 0.02);
      const ends = [...spots.map((p) => p[axis]), ...sorted.slice(cut, sorted.length - cut)];
      return [Math.min(...ends), Math.max(...ends)];
    });
    spots.push(...loose);
    space.middle = span.map(([a, b]) => (a + b) / 2);
    space.radius = Math.max(0.5, Math.hypot(...span.map(([a, b]) => b - a)) / 2);
    space.ground = Math.min(...spots.map((p) => dot(p, space.up)));
  }

  let space = spaces[0], turn, height, distance, target;
  const reset = () => { turn = -0.5; height = 0.5; distance = 1.6 * space.radius; target = [...space.middle]; };

  let width = 0, tall = 0, ratio = 1, picture, nearest;
  const resize = () => {
    ratio = Math.min(2, window.devicePixelRatio || 1);
    width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    tall = canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    picture = context.createImageData(width, tall);
    nearest = new Float32Array(width * tall);
    draw();
  };

  const basis = () => {
    const flat = add(space.ahead.map((x) => x * Math.cos(turn)), space.side, Math.sin(turn));
    const look = unit(add(flat.map((x) => x * Math.cos(height)), space.up, -Math.sin(height)));
    const right = unit(cross(look, space.up));
    return { look, right, down: cross(look, right), eye: add(target, look, -distance), focal: 1.1 * Math.min(width, tall) };
  };

  const near = 0.03;
  const see = (view, p) => { const d = add(p, view.eye, -1); return [dot(d, view.right), dot(d, view.down), dot(d, view.look)]; };
  const place = (view, q) => [width / 2 + view.focal * q[0] / q[2], tall / 2 + view.focal * q[1] / q[2]];

  const stroke = (view, lines, colour, thickness) => {
    context.beginPath();
    for (const [from, to] of lines) {
      let a = see(view, from), b = see(view, to);
      if (a[2] < near && b[2] < near) continue;
      if (a[2] < near || b[2] < near) {
        const share = (near - a[2]) / (b[2] - a[2]), cut = add(a, add(b, a, -1), share);
        if (a[2] < near) a = cut; else b = cut;
      }
      const [p, q] = [place(view, a), place(view, b)];
      context.moveTo(...p); context.lineTo(...q);
    }
    context.strokeStyle = colour; context.lineWidth = thickness * ratio; context.stroke();
  };

  const drawPoints = (view, dark) => {
    const data = picture.data, ground = dark ? [20, 23, 31] : [255, 255, 255];
    for (let i = 0; i < data.length; i += 4) { data[i] = ground[0]; data[i + 1] = ground[1]; data[i + 2] = ground[2]; data[i + 3] = 255; }
    if (space.xyz && isOn("points")) {
      nearest.fill(Infinity);
      const { eye, right, down, look, focal } = view, xyz = space.xyz, rgb = space.rgb;
      for (let i = 0; i < xyz.length; i += 3) {
        const x = xyz[i] - eye[0], y = xyz[i + 1] - eye[1], z = xyz[i + 2] - eye[2];
        const depth = x * look[0] + y * look[1] + z * look[2];
        if (depth < near) continue;
        const u = Math.round(width / 2 + focal * (x * right[0] + y * right[1] + z * right[2]) / depth);
        const v = Math.round(tall / 2 + focal * (x * down[0] + y * down[1] + z * down[2]) / depth);
        const size = Math.max(1, Math.min(4, Math.round(0.011 * focal / depth)));
        for (let r = v; r < v + size; r++) for (let c = u; c < u + size; c++) {
          if (c < 0 || r < 0 || c >= width || r >= tall) continue;
          const k = r * width + c;
          if (depth >= nearest[k]) continue;
          nearest[k] = depth;
          data[4 * k] = rgb[i]; data[4 * k + 1] = rgb[i + 1]; data[4 * k + 2] = rgb[i + 2];
        }
      }
    }
    context.putImageData(picture, 0, 0);
  };

  const drawGround = (view, dark) => {
    const lines = [], half = Math.min(12, Math.ceil(space.radius) + 1);
    const base = add(add(space.middle, space.up, space.ground - dot(space.middle, space.up)), [0, 0, 0]);
    for (let i = -half; i <= half; i++) {
      const a = add(base, space.side, i), b = add(base, space.ahead, i);
      lines.push([add(a, space.ahead, -half), add(a, space.ahead, half)], [add(b, space.side, -half), add(b, space.side, half)]);
    }
    stroke(view, lines, dark ? "rgba(255,255,255,0.13)" : "rgba(29,36,51,0.13)", 1);
  };

  let written = [];
  const write = (view, words, spot, dark) => {
    const q = see(view, spot);
    if (q[2] < near) return;
    let [x, y] = place(view, q);
    const text = words.length > 48 ? words.slice(0, 47) + "\u2026" : words;
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    const wide = context.measureText(text).width, tallText = 18 * ratio;
    const left = Math.min(Math.max(2, x - wide / 2), Math.max(2, width - wide - 10));
    // Words give way upwards to those that stand there.
    const meets = (other) => Math.abs(other[1] - y) < tallText && left < other[2] && other[0] < left + wide + 8;
    for (let met = written.find(meets); met; met = written.find(meets)) y = met[1] - tallText - 1;
    written.push([left, y, left + wide + 8]);
    context.fillStyle = dark ? "rgba(20,23,31,0.85)" : "rgba(255,255,255,0.88)";
    context.fillRect(left - 4, y - tallText - 4, wide + 8, tallText);
    context.fillStyle = dark ? "#e7eaf1" : "#1d2433";
    context.fillText(text, left, y - 4 - 5 * ratio);
  };

  // The axes in which the table counts, half a metre from the origin, under the boxes.
  const axes = [["x", [0.5, 0, 0], "214,39,40"], ["y", [0, 0.5, 0], "44,140,44"], ["z", [0, 0, 0.5], "31,95,200"]];
  const drawAxes = (view, dark) => {
    for (const [name, end, colour] of axes) {
      stroke(view, [[[0, 0, 0], end]], `rgb(${colour})`, 3);
      if (isOn("labels")) write(view, name, end, dark);
    }
  };

  let isWaiting = false;
  const draw = () => {
    isWaiting = false;
    written = [];
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches, view = basis();
    drawPoints(view, dark);
    drawGround(view, dark);
    drawAxes(view, dark);
    if (isOn("cameras")) {
      const centres = space.cameras.map((camera) => camera.centre);
      stroke(view, centres.slice(1).map((centre, i) => [centres[i], centre]), dark ? "#e7eaf1" : "#1d2433", 2);
      for (const camera of space.cameras) stroke(view, camera.lines, dark ? "#a5adbd" : "#5a6273", 1.2);
    }
    for (const box of space.boxes) {
      stroke(view, box.lines, dark ? "#000" : "#1d2433", 4.5);
      stroke(view, box.lines, `rgb(${box.colour})`, 2.8);
    }
    if (isOn("labels")) {
      for (const box of space.boxes) write(view, box.label, box.anchor, dark);
      if (isOn("cameras") && space.cameras.length > 1) {
        write(view, "frame " + space.cameras[0].name, space.cameras[0].centre, dark);
        write(view, "frame " + space.cameras[space.cameras.length - 1].name, space.cameras[space.cameras.length - 1].centre, dark);
      }
    }
  };
  const later = () => { if (!isWaiting) { isWaiting = true; requestAnimationFrame(draw); } };

  let timer = 0;
  const tell = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const degrees = (x) => Math.round(x * 180 / Math.PI);
      status.textContent = `View turned by ${((degrees(turn) % 360) + 360) % 360}\u00b0, ${degrees(height)}\u00b0 from above, ${distance.toFixed(1)} m away.`;
    }, 250);
  };
  const move = (x, y) => {
    const view = basis(), step = distance / 10;
    target = add(add(target, view.right, x * step), view.down, y * step);
  };
  const actions = {
    left: () => { turn -= 0.15; }, right: () => { turn += 0.15; },
    up: () => { height = Math.min(1.55, height + 0.1); }, down: () => { height = Math.max(-1.55, height - 0.1); },
    nearer: () => { distance = Math.max(0.1, distance / 1.15); }, farther: () => { distance = Math.min(500, distance * 1.15); },
    reset,
  };
  const act = (change) => { change(); later(); tell(); };

  for (const button of document.querySelectorAll("button[data-do]")) button.addEventListener("click", () => act(actions[button.dataset.do]));
  for (const id of ["labels", "cameras", "points"]) document.getElementById(id)?.addEventListener("change", later);
  document.getElementById("spaces")?.addEventListener("change", (event) => { space = spaces[Number(event.target.value)]; act(reset); });
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "nearer", "=": "nearer", "-": "farther", Home: "reset" };
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    act(event.shiftKey && event.key in moves ? () => move(...moves[event.key]) : actions[keys[event.key]]);
  });
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointercancel", () => { last = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const x = event.clientX - last[0], y = event.clientY - last[1];
    last = [event.clientX, event.clientY];
    act(() => {
      if (event.shiftKey) move(-x * 10 / canvas.clientHeight, -y * 10 / canvas.clientHeight);
      else { turn -= x * 0.008; height = Math.max(-1.55, Math.min(1.55, height + y * 0.008)); }
    });
  });
  // The page scrolls until the view has the focus.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    act(event.deltaY > 0 ? actions.farther : actions.nearer);
  }, { passive: false });

  reset();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  new ResizeObserver(resize).observe(canvas);
})();
