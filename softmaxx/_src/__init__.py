"""The library, room by room; private: use `import softmaxx as sx`."""
